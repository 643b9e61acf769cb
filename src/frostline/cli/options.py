"""The flags of ``frostline train``, with the words of their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frostline.cli.completion import one_of

Data = Annotated[
    Path | None,
    typer.Argument(help="folder of class folders, one with train/ and val/ in it, or a CSV or Parquet manifest", show_default=False),
]
Val = Annotated[Path | None, typer.Option(help="a separate validation folder")]
Backbone = Annotated[
    str | None,
    typer.Option(
        help="NAME, timm:NAME, torchvision:NAME, hf:NAME or module:attr [default: tf_efficientnet_lite0]", autocompletion=one_of("backbone")
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(help="default, random, or a safetensors or state-dict file [default: default]", autocompletion=one_of("weights")),
]
ReplaceLayer = Annotated[str | None, typer.Option(help="layer of one's own network to drop, such as fc")]
Unfreeze = Annotated[
    str | None,
    typer.Option(
        help="none, last:N, from:NAME, NAME[,NAME], params:N, norm, bias or all [default: none]", autocompletion=one_of("unfreeze")
    ),
]
Head = Annotated[
    str | None,
    typer.Option(
        help="linear, ridge, logistic or mlp:WIDTH (with @BLOCK, @all or @auto), conv:CHANNELS or attention [default: linear]",
        autocompletion=one_of("head"),
    ),
]
Strategy = Annotated[str | None, typer.Option(help="plain, lp-ft, gradual or auto [default: plain]", autocompletion=one_of("strategy"))]
Epochs = Annotated[int | None, typer.Option(help="passes over the training images, of each phase [default: by rule]")]
BatchSize = Annotated[int | None, typer.Option(help="images a batch [default: by rule]")]
Lr = Annotated[float | None, typer.Option(help="peak learning rate of the head [default: by rule]")]
BackboneLr = Annotated[float | None, typer.Option(help="peak learning rate of unfrozen layers [default: a tenth of --lr]")]
WeightDecay = Annotated[float | None, typer.Option(help="of AdamW, not on norms and biases [default: by rule]")]
LayerDecay = Annotated[float | None, typer.Option(help="factor on the rate from each unfrozen block to the one before [default: 1]")]
Augment = Annotated[str | None, typer.Option(help="none, light or strong [default: none]", autocompletion=one_of("augment"))]
Views = Annotated[
    str | None, typer.Option(help="augmented views of each image to cache, or live [default: 1]", autocompletion=one_of("views"))
]
ClassWeights = Annotated[str | None, typer.Option(help="none or balanced [default: none]", autocompletion=one_of("class_weights"))]
LabelSmoothing = Annotated[float | None, typer.Option(help="0 to below 1 [default: 0]")]
Mixup = Annotated[float | None, typer.Option(help="parameter of mixup on features, 0 is off [default: 0]")]
ClipNorm = Annotated[float | None, typer.Option(help="most the norm of the gradients may be, 0 is off [default: 0]")]
Accumulate = Annotated[int | None, typer.Option(help="batches that make one step [default: 1]")]
Ema = Annotated[float | None, typer.Option(help="decay of averaged weights that are kept instead, 0 is off [default: 0]")]
L2Sp = Annotated[float | None, typer.Option(help="pull of backbone weights to their pre-trained values, 0 is off [default: 0]")]
Wise = Annotated[
    bool | None, typer.Option("--wise", help="mix the weights of a later phase with those before it (WiSE-FT)", show_default=False)
]
BatchNorm = Annotated[
    str | None, typer.Option(help="in frozen layers: frozen, affine or train [default: frozen]", autocompletion=one_of("batch_norm"))
]
Sweep = Annotated[int | None, typer.Option(help="heads to try at once by cross-validation on the training images, 0 is off [default: 0]")]
Budget = Annotated[str | None, typer.Option(help="time for all of it, such as 90s or 10m: the best so far is kept")]
Nested = Annotated[
    int | None,
    typer.Option(help="folds of a nested cross-validation, where there is no test set [default: 0]"),
]
Precision = Annotated[
    str | None, typer.Option(help="of the frozen layers: auto, fp32 or bf16 [default: auto]", autocompletion=one_of("precision"))
]
Engine = Annotated[
    str | None,
    typer.Option(
        help="what runs the frozen layers: auto, plain, eager, openvino or compile [default: auto]",
        show_default=False,
        autocompletion=one_of("engine"),
    ),
]
Storage = Annotated[
    str | None, typer.Option(help="of cached features: fp32, fp16 or bf16 [default: fp32]", autocompletion=one_of("storage"))
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:0 or mps [default: auto]", autocompletion=one_of("device"))]
Seed = Annotated[int | None, typer.Option(help="same seed, same result [default: 0]")]
CacheDir = Annotated[Path | None, typer.Option(help="folder of the feature cache")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="compute frozen layers anew in every epoch")]
Out = Annotated[Path | None, typer.Option(help="run directory [default: runs/<time>-<name>]")]
Resume = Annotated[Path | None, typer.Option(metavar="RUN", help="go on with a run that was interrupted")]
Log = Annotated[str | None, typer.Option(help="write what training tells elsewhere too: tensorboard, into RUN/tensorboard")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object")]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress")]
