"""Networks trained here and loaded in torchvision, and the other way round; see weights_roundtrip.sh.

    weights_roundtrip.py BINARY FOLDER DEVICE
"""

import csv
import pathlib
import subprocess
import sys

import numpy as np
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file

BINARY, WORK, DEVICE = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
SIZE = 64
MEAN, STD = 0.45, 0.22
# Logits may differ by this share of their norm. What is seen is some 1e-6.
LIMIT = 1e-3
DATA = WORK / "data"


def radiograd(*args):
    done = subprocess.run([BINARY, *map(str, args)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, args))}: {done.stderr}")
    return done.stdout + done.stderr


def images(names, channels):
    """The test images as the network sees them."""
    out = []
    for name in names:
        found = [p for p in DATA.glob("test/*/*") if str(p).endswith(name)]
        assert len(found) == 1, (name, found)
        grey = np.asarray(Image.open(found[0]).convert("L"), dtype=np.float32) / 255
        assert grey.shape == (SIZE, SIZE)
        out.append(np.repeat(((grey - MEAN) / STD)[None], channels, axis=0))
    return torch.from_numpy(np.stack(out).astype(np.float32))


def rows(path):
    """Names and logits of `eval --logits`."""
    table = list(csv.reader(path.open()))[1:]
    return [r[0] for r in table], np.array([[float(v) for v in r[2:]] for r in table])


def logits(model, names, channels=3):
    model.eval()
    with torch.no_grad():
        return model(images(names, channels)).numpy().astype(np.float64)


def compare(ours, theirs, what):
    assert ours.shape == theirs.shape and len(ours) > 0, (what, ours.shape, theirs.shape)
    error = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    spread = np.ptp(theirs, axis=0).max()
    print(f"{what}: relative error {error:.1e} over {len(ours)} images (logits spread over {spread:.2g})", flush=True)
    assert error < LIMIT, what
    # Logits that are all alike would prove nothing.
    assert spread > 100 * error * np.abs(theirs).max(), what


def settings(*more):
    return ["--data", DATA, "--size", SIZE, "--device", DEVICE, "--quiet", *more]


def norms():
    return ["--mean", f"{MEAN},{MEAN},{MEAN}", "--std", f"{STD},{STD},{STD}"]


def evaluate(name, file, *more):
    out = WORK / "logits.csv"
    radiograd("eval", *settings("--model", name, "--weights", file, "--logits", out, *more))
    return rows(out)


def there(name):
    """A network trained here, in torchvision."""
    run = WORK / f"run-{name}"
    means = ["--set", f"mean=[{MEAN}, {MEAN}, {MEAN}]", "--set", f"std=[{STD}, {STD}, {STD}]"]
    training = ["--model", name, "--channels", 3, "--epochs", 1, "--batch", 8, "--lr", 1e-4, "--out", run]
    radiograd("train", *settings(*training, *means))
    tensors = load_file(run / "best.safetensors")
    model = getattr(torchvision.models, name)(num_classes=2)
    assert set(model.state_dict()) == set(tensors), set(model.state_dict()) ^ set(tensors)
    for key, value in model.state_dict().items():
        assert (value.shape, value.dtype) == (tensors[key].shape, tensors[key].dtype), key
    model.load_state_dict(tensors, strict=True)
    out = WORK / "logits.csv"
    radiograd("eval", "--run", run, "--data", DATA, "--device", DEVICE, "--quiet", "--logits", out)
    names, ours = rows(out)
    compare(ours, logits(model, names), f"{name}, trained here, loaded strictly in torchvision")
    # Every batch-norm has seen every step.
    steps = {int(v) for k, v in tensors.items() if k.endswith("num_batches_tracked")}
    assert len(steps) <= 1 and 0 not in steps, steps


def varied(name, classes=2):
    """A network of torchvision with random weights and statistics."""
    torch.manual_seed(len(name))
    model = getattr(torchvision.models, name)(num_classes=classes)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.7, 1.4)
            module.weight.data.uniform_(0.7, 1.4)
            module.bias.data.normal_(0, 0.1)
    return model


def here(name):
    """Weights of torchvision's, read here."""
    model = varied(name)
    state = model.state_dict()
    files = [WORK / f"{name}{end}" for end in (".pth", "-old.pth", ".safetensors", "-half.pth")]
    torch.save(state, files[0])
    torch.save(state, files[1], _use_new_zipfile_serialization=False)
    save_file(state, files[2])
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, files[3])
    for file in files:
        names, ours = evaluate(name, file, "--channels", 3, *norms())
        if "half" in file.name:
            half = {k: v.half().float() if v.is_floating_point() else v for k, v in state.items()}
            model.load_state_dict(half, strict=True)
        compare(ours, logits(model, names), f"{name}, saved by torch as {file.suffix}{'' if 'old' not in file.name else ' of before 1.6'}"
                + (" in half precision" if "half" in file.name else "") + ", read here")


def otherwise():
    """Grey images, other names, another number of classes."""
    model = varied("resnet18")
    state = model.state_dict()
    file = WORK / "wrapped.pth"
    torch.save({"state_dict": {f"backbone.{k}": v for k, v in state.items()}}, file)
    names, ours = evaluate("resnet18", file, "--key-map", "backbone=", "--grey", "sum", "--mean", MEAN, "--std", STD)
    compare(ours, logits(model, names), "resnet18, other names, summed over its inputs for grey images")
    _, ours = evaluate("resnet18", file, "--key-map", "backbone=", "--grey", "repeat", *norms())
    compare(ours, logits(model, names), "resnet18, other names, grey images repeated")

    # Published DenseNets: names with dots, a thousand classes, before 1.6.
    torch.manual_seed(5)
    model = varied("densenet121", 1000)
    old = {}
    for key, value in model.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            for part in ("norm1", "norm2", "conv1", "conv2"):
                key = key.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.") if "denselayer" in key else key
            old[key] = value
    assert any(".norm.1." in key for key in old)
    file = WORK / "published.pth"
    torch.save(old, file, _use_new_zipfile_serialization=False)
    run = WORK / "transfer"
    training = ["--model", "densenet121", "--init", file, "--grey", "repeat", "--epochs", 1, "--batch", 8, "--out", run]
    said = radiograd("train", *[s for s in settings(*training) if s != "--quiet"], "--lr", 1e-30)
    head = [line for line in said.splitlines() if "begins anew" in line]
    assert len(head) == 1 and "classifier.weight" in head[0] and "1000" in head[0], said
    tensors = load_file(run / "best.safetensors")
    for key, value in model.state_dict().items():
        if not key.startswith("classifier.") and not key.endswith(("running_mean", "running_var", "num_batches_tracked")):
            assert torch.equal(tensors[key], value), key
    print(f"densenet121, old names and 1000 classes: {head[0]}; the rest begins as in the file", flush=True)


print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, device {DEVICE}", flush=True)
radiograd("data", "phantom", DATA, "--images", 80, "--size", SIZE)
for network in ("resnet18", "densenet121", "alexnet"):
    there(network)
    here(network)
otherwise()
print("all weights went both ways")
