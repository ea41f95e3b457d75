"""EEG and EMG networks of braindecode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ..network import Network
from ..packages import cls

CHANNELS, OUTPUTS = 8, 4
HAND: dict[str, Any] = {"conformer_num_layers": 3, "conformer_stride": (1, 2, 1), "conformer_attn_window_size": (16, 16, 8)}
LAST: dict[str, Any] = {"options": {"output": -1}}  # of each window its last frame


def eeg(name: str, n_times: int = 500, sfreq: int = 125, **more: Any) -> Callable[[], nn.Module]:
    """A builder of a network for eight electrodes."""

    def build() -> nn.Module:
        sizes: dict[str, Any] = {"n_chans": CHANNELS, "n_outputs": OUTPUTS, "n_times": n_times, "sfreq": sfreq} | more
        if sizes.pop("positions", False):
            sizes["chs_info"] = _positions()
        module: nn.Module = cls(f"braindecode.models.{name}")(**sizes)
        return module

    return build


def _positions() -> list[dict[str, Any]]:
    """Eight electrodes of the standard montage, as mne gives them."""
    mne = __import__("mne")
    names = ["Fz", "C3", "Cz", "C4", "P3", "Pz", "P4", "Oz"]
    info = mne.create_info(names, 125.0, "eeg")
    info.set_montage("standard_1005")
    chs: list[dict[str, Any]] = info["chs"]
    return chs


def row(name: str, source: str, frames: int = 500, channels: int = CHANNELS, expected: Any = "windows", **more: Any) -> Network:
    """A network of braindecode under its own name."""
    row_of = {k: more.pop(k) for k in ("why", "options", "single", "clip", "time_dim") if k in more}
    made = more.pop("build", None) or eeg(name, n_times=frames, **more)
    clip = row_of.pop("clip", (2, channels, frames))
    return Network(f"braindecode/{name}", made, clip, expected, source, package="braindecode", **row_of)


NETWORKS = [
    row("ATCNet", "Altaheri 2022, IEEE TII"),
    row("AttentionBaseNet", "Wimpff 2024, J. Neural Eng."),
    row("AttnSleep", "Eldele 2021, TNSRE", 3000, 1, n_chans=1, sfreq=100),
    row("BDTCN", "Gemein 2020, NeuroImage"),
    row(
        "BENDR",
        "Kostas 2021, Front. Hum. Neurosci.",
        encoder_h=32,
        contextualizer_hidden=64,
        transformer_layers=2,
        transformer_heads=4,
    ),
    row("BIOT", "Yang 2023, NeurIPS", 600, sfreq=200),
    row("BrainModule", "Défossez 2023, Nat. Mach. Intell."),
    row("CBraMod", "Wang 2025, ICLR", 800, sfreq=200),
    row("CodeBrain", "Ma 2025, arXiv:2506.09110", 600, sfreq=200),
    row("ContraWR", "Yang 2021, arXiv:2110.15278", 800),
    row("CTNet", "Zhao 2024, Sci. Rep."),
    row("Deep4Net", "Schirrmeister 2017, Hum. Brain Mapp."),
    row("DeepSleepNet", "Supratak 2017, TNSRE", 3000, 1, n_chans=1, sfreq=100),
    row("DGCNN", "Song 2018, IEEE TAC", positions=True),
    row("EEGConformer", "Song 2022, TNSRE"),
    row("EEGDINO", "Wang 2025, MICCAI", sfreq=200),
    row("EEGInceptionERP", "Santamaría-Vázquez 2020, TNSRE"),
    row("EEGInceptionMI", "Zhang 2021, J. Neural Eng."),
    row("EEGITNet", "Salami 2022, IEEE Access"),
    row("EEGMiner", "Ludwig 2024, J. Neural Eng."),
    row("EEGNet", "Lawhern 2018, J. Neural Eng."),
    row("EEGNeX", "Chen 2024, Biomed. Signal Process."),
    row("EEGPT", "Wang 2024, NeurIPS", 512, sfreq=128),
    row("EEGSimpleConv", "El Ouahidi 2023, arXiv:2309.07159"),
    row("EEGSym", "Pérez-Velasco 2022, TNSRE", positions=True),
    row("EEGTCNet", "Ingolfsson 2020, SMC"),
    row("EMG2QwertyNet", "Sivakumar 2024, NeurIPS", 4000, 32, "stream", n_chans=32, n_outputs=20, sfreq=2000),
    row("FBCNet", "Mane 2021, arXiv:2104.01233"),
    row("FBLightConvNet", "Ma 2023, TNSRE"),
    row("FBMSNet", "Liu 2022, IEEE TBME"),
    row("HybridNet", "Schirrmeister 2017, Hum. Brain Mapp.", 1000, expected="stream"),
    row("IFNet", "Wang 2023, TNSRE"),
    row("Labram", "Jiang 2024, ICLR", 600, 128, n_chans=128, sfreq=200, embed_dim=40, num_layers=4),
    row("LUNA", "Döner 2025, NeurIPS", 1000, sfreq=250),
    row("MEDFormer", "Wang 2024, NeurIPS"),
    row("MetaNeuromotorHand", "Kaifosh 2025, Nature", 8000, 16, "stream", n_chans=16, sfreq=2000, **HAND),
    row("MSVTNet", "Liu 2024, IEEE JBHI"),
    row("MVPFormer", "Carzaniga 2025, arXiv:2506.20354"),
    row("NeuroPose", "Liu 2021, WWW", 1920, 16, "stream", n_chans=16, sfreq=2000),
    row("PBT", "Klein 2025, J. Neural Eng."),
    row("SCCNet", "Wei 2019, NER"),
    row("SensingDynamics", "Simpetru 2022, EMBC", 480, 16, n_chans=16, sfreq=2000, **LAST),
    row("ShallowFBCSPNet", "Schirrmeister 2017, Hum. Brain Mapp."),
    row("SignalJEPA", "Guetschel 2024, arXiv:2403.11772", 512, sfreq=128, positions=True, **LAST),
    row("SignalJEPA_Contextual", "Guetschel 2024, arXiv:2403.11772", 512, sfreq=128, positions=True),
    row("SignalJEPA_PostLocal", "Guetschel 2024, arXiv:2403.11772", 512, sfreq=128, positions=True),
    row("SignalJEPA_PreLocal", "Guetschel 2024, arXiv:2403.11772", 512, sfreq=128, positions=True),
    row("SincShallowNet", "Borra 2020, Neural Netw."),
    row("SleepStagerBlanco2020", "Fernandez-Blanco 2020, Soft Comput.", 1500),
    row("SleepStagerChambon2018", "Chambon 2018, TNSRE", 1000),
    row("SPARCNet", "Jing 2023, Neurology"),
    row("SSTDPN", "Han 2025, arXiv:2407.04309"),
    row("STEEGFormer", "Li 2026, ICLR", 512, sfreq=128),
    row("SyncNet", "Li 2017, NeurIPS"),
    row("TCFormer", "Altaheri 2025, Sci. Rep."),
    row(
        "TCN",
        "Bai 2018, arXiv:1803.01271",
        300,
        expected="stream",
        build=lambda: cls("braindecode.models.TCN")(n_chans=8, n_outputs=4, n_blocks=3, n_filters=8, kernel_size=5),
    ),
    row("TIDNet", "Kostas 2020, J. Neural Eng."),
    row("TSception", "Ding 2022, IEEE TAC"),
    row("USleep", "Perslev 2021, npj Digit. Med.", 3000, sfreq=100),
    row("VEMG2Pose", "Salter 2024, NeurIPS", 2190, 16, n_chans=16, sfreq=2000, hidden_size=64, **LAST),
]
