#!/usr/bin/env python3
"""Holds the exported networks of a run against the run itself.

    scripts/onnx_check.py RUN DATA

RUN holds `best.safetensors`, `plain.onnx`, `pixels.onnx` and `logits.csv`, which `scripts/onnx_test.sh` has made; DATA is the image
folder that the logits are of. Checked are: the model (ONNX's checker, shape inference included), the names, inputs and outputs of
the graph, its metadata, and the logits of ONNX Runtime with batches of 1, of 5 and of all images.
"""

import csv
import json
import pathlib
import struct
import sys

import numpy as np
import onnx
import onnxruntime
from PIL import Image

TOLERANCE = 1e-4


def main(run, data):
    rows = list(csv.DictReader((run / "logits.csv").open()))
    wanted = np.array([[float(v) for k, v in row.items() if k.startswith("logit")] for row in rows], dtype=np.float32)
    assert len(rows) >= 10 and np.isfinite(wanted).all() and wanted.std() > 1e-3, "these logits prove nothing"
    pixels = np.stack([np.asarray(Image.open(data / row["image"]).convert("L")) for row in rows])[:, None].astype(np.float32)
    weights = set(tensors(run / "best.safetensors"))
    worst = 0.0
    for name in ("plain", "pixels"):
        path = run / f"{name}.onnx"
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        meta = look_at(model, weights, pixels.shape[1:], wanted.shape[1])
        x = pixels
        if name == "plain":
            mean, std = (np.array(json.loads(meta[f"radiograd.{k}"]), dtype=np.float32) for k in ("mean", "std"))
            x = (pixels / np.float32(255) - mean[:, None, None]) / std[:, None, None]
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for batch in (1, 5, len(rows)):
            parts = [session.run(["logits"], {"input": x[i : i + batch]})[0] for i in range(0, len(rows), batch)]
            got = np.concatenate(parts)
            assert got.shape == wanted.shape, (got.shape, wanted.shape)
            far = float(np.abs(got - wanted).max())
            assert far <= TOLERANCE, f"{path.name}, batch {batch}: logits differ by {far:.2e}"
            worst = max(worst, far)
    print(f"{run.name}: {len(model.graph.node) - 2} nodes, {len(weights)} tensors, {len(rows)} images, "
          f"logits from {wanted.min():.3f} to {wanted.max():.3f}, largest difference {worst:.1e}")


def tensors(path):
    """The names of a safetensors file's floats."""
    raw = path.read_bytes()
    header = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
    return [k for k, v in header.items() if k != "__metadata__" and v["dtype"] == "F32"]


def look_at(model, weights, image, outputs):
    """What Netron would show; gives the metadata."""
    graph = model.graph

    def axes(value):
        return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]

    assert [(v.name, axes(v)) for v in graph.input] == [("input", ["N", *image])], graph.input
    assert [(v.name, axes(v)) for v in graph.output] == [("logits", ["N", outputs])], graph.output
    constants = {t.name for t in graph.initializer if "/" not in t.name}
    assert constants == weights, constants ^ weights
    nodes = {n.name.split("/")[0] for n in graph.node}
    assert all(w.rsplit(".", 1)[0] in nodes for w in weights), nodes
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph.value_info
    ours = {v.name: axes(v) for v in graph.value_info}
    for value in inferred:
        assert ours.get(value.name, axes(value)) == axes(value), (value.name, ours[value.name], axes(value))
    meta = {p.key: p.value for p in model.metadata_props}
    assert json.loads(meta["radiograd.classes"]) == ["NORMAL", "PNEUMONIA"], meta
    assert "not a medical device" in meta["radiograd.notice"] and "not a medical device" in model.doc_string
    return meta


main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
