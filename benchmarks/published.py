"""What the papers, their code and their logs say of the zoo's networks. Operations in G, as they count (see `continual.operations`).

Re-measured where it could be with continual-inference 1.2.4 and the counter ptflops 0.6. Figures of steps count norms and ReLUs twice (the
counter saw those of streaming containers twice) and the last linear map not at all.
"""

from __future__ import annotations

from typing import TypeAlias

Figures: TypeAlias = dict[tuple[str, int], float]  # by name and input size

STEPS: Figures = {
    ("cox3d_s", 160): 0.16657,
    ("cox3d_xs", 160): 0.16657,
    ("cox3d_m", 224): 0.32546,
    ("cox3d_l", 312): 1.24555,
    ("coslow", 256): 6.90009,
    ("cost_gcn_star", 25): 0.15574,
    ("coa_gcn_star", 25): 0.17214,
    ("cos_tr_star", 25): 0.15053,
    ("cost_gcn_star", 18): 0.11213,
    ("coa_gcn_star", 18): 0.12394,
    ("cos_tr_star", 18): 0.10838,
}

PER_PREDICTION: Figures = {  # of the regular skeleton networks: four frames
    ("cost_gcn", 25): 0.22348,
    ("coa_gcn", 25): 0.24957,
    ("cos_tr", 25): 0.21566,
    ("cost_gcn", 18): 0.16090,
    ("coa_gcn", 18): 0.17969,
    ("cos_tr", 18): 0.15528,
}

CLIPS: Figures = {  # as published, for the clip network
    ("cox3d_xs", 160): 0.63474,
    ("cox3d_s", 160): 2.06055,
    ("cox3d_m", 224): 4.96919,
    ("cox3d_l", 312): 19.16523,
    ("coslow", 256): 54.86805,
    ("coi3d", 224): 28.60684,
    ("cost_gcn", 25): 16.72811,
    ("cost_gcn_star", 25): 36.90283,
    ("coa_gcn", 25): 18.68507,
    ("coa_gcn_star", 25): 40.86960,
    ("cos_tr", 25): 16.14203,
    ("cos_tr_star", 25): 35.65291,
    ("cost_gcn", 18): 12.04433,
    ("cost_gcn_star", 18): 26.57013,
    ("coa_gcn", 18): 13.45334,
    ("coa_gcn_star", 18): 29.42621,
    ("cos_tr", 18): 11.62235,
    ("cos_tr_star", 18): 25.67019,
}
