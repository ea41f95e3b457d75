"""A client of a running server, under the Python of the environment that the server came in: requests in, answers out.

``python client.py ADDRESS MODEL IN.npz OUT.npz``. IN has the requests as JSON (``plan``): rounds, which follow each other; a round is
a list of requests that are sent together. A request is ``{"stream", "start", "end", "x": [names of arrays in IN]}``. OUT has the
answers by the number of the request: ``0.y``, ``0.valid``, or ``0.error``.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype


def main(address: str, model: str, asked: str, answered: str) -> None:
    client = grpc.InferenceServerClient(address)
    config = client.get_model_config(model).config
    inputs, outputs = [i.name for i in config.input], [o.name for o in config.output]
    given = np.load(asked)

    def send(request: dict) -> dict[str, np.ndarray]:
        tensors = []
        for name, key in zip(inputs, request["x"]):
            value = given[key]
            tensor = grpc.InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype))
            tensor.set_data_from_numpy(value)
            tensors.append(tensor)
        try:
            result = client.infer(
                model,
                tensors,
                sequence_id=request["stream"],
                sequence_start=request["start"],
                sequence_end=request["end"],
                client_timeout=60,
            )
        except InferenceServerException as error:
            return {"error": np.array(f"{error.status()}: {error.message()}")}
        return {name: result.as_numpy(name) for name in outputs}

    found, number = {}, 0
    with ThreadPoolExecutor(32) as pool:
        for together in json.loads(str(given["plan"])):
            for answer in pool.map(send, together):
                found.update({f"{number}.{name}": value for name, value in answer.items()})
                number += 1
    stats = client.get_inference_statistics(model).model_stats[0]
    found["executions"], found["requests"] = np.array(stats.execution_count), np.array(stats.inference_count)
    np.savez(answered, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
