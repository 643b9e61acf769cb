"""The routes: ``/predict``, ``/explain``, ``/model``, ``/healthz``, ``/openapi.json`` and the page."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.resources
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import FastAPI, File, HTTPException, UploadFile
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from frostline import __version__
from frostline.data._names import shown
from frostline.errors import DecodeError
from frostline.serve.batcher import Batcher, BusyError
from frostline.serve.explain import Explainer
from frostline.serve.limits import Limits
from frostline.use import Labeller, Prediction


class Answer(BaseModel):
    """The answer for one picture, as ``frostline predict --json`` gives it."""

    path: str
    label: str
    probability: float
    probabilities: dict[str, float]
    unfamiliar: bool | None
    unfamiliarity: float | None


class NoAnswer(BaseModel):
    """A file that is no image."""

    path: str
    error: str


class Near(BaseModel):
    """A training image that is like the picture."""

    path: str
    label: str
    similarity: float
    picture: str | None


class Explanation(Answer):
    """An answer with what it rests on; pictures are ``data:`` addresses."""

    seen: str
    heat: list[list[float]] | None
    heat_why: str | None
    nearest: list[Near]
    nearest_why: str | None


Files = Annotated[list[UploadFile], File(description="one or many image files")]


def make_app(labeller: Labeller, limits: Limits) -> FastAPI:
    """The application, without its guard.

    Args:
        labeller: the run.
        limits: of what waits.
    """
    batcher = Batcher(labeller, limits.pictures)
    explainer = Explainer(labeller)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        del app
        batcher.start()
        yield
        await batcher.close()

    # FastAPI's own documentation pages load their code from elsewhere: there are none.
    app = FastAPI(title="frostline", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)

    async def labelled(files: list[UploadFile]) -> tuple[list[Prediction], list[bytes]]:
        contents = [await file.read() for file in files]
        try:
            return await batcher.ask([(file.filename or "", data) for file, data in zip(files, contents, strict=True)]), contents
        except BusyError as fault:
            raise HTTPException(503, "too many pictures are waiting, try again soon", {"Retry-After": "1"}) from fault

    @app.post("/predict", response_model=list[Answer | NoAnswer])
    async def predict(files: Files) -> JSONResponse:
        """Label images; one answer a file, in their order."""
        answers, _ = await labelled(files)
        return JSONResponse([a.to_json(str(a.path)) for a in answers])

    @app.post("/explain", response_model=list[Explanation | NoAnswer])
    async def explain(files: Files) -> JSONResponse:
        """Label images and say what the answers rest on."""
        found: list[dict[str, Any]] = []
        for answer, data in zip(*await labelled(files), strict=True):
            plain = answer.to_json(str(answer.path))
            pixels = await batcher.decoded(data)
            if answer.label is not None and not isinstance(pixels, DecodeError):
                plain |= await batcher.on_network(lambda p=pixels, label=answer.label: explainer(p, label))
            found.append(plain)
        return JSONResponse(found)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether requests are answered."""
        return {"status": "ok"}

    @app.get("/model")
    async def model() -> dict[str, Any]:
        """What is served."""
        return _facts(labeller, explainer, limits)

    _add_page(app)
    return app


def _facts(labeller: Labeller, explainer: Explainer, limits: Limits) -> dict[str, Any]:
    run, familiar = labeller.run, labeller.familiar
    return {
        "run": shown(run.folder.resolve().name),
        "backbone": run.model.opened.name,
        "head": str(run.model.head_spec),
        "classes": list(run.classes),
        "val": run.summary.get("val"),
        "unfamiliar": None if familiar is None else {"threshold": familiar.threshold, "calibrated_on": familiar.calibrated_on},
        "heat": not isinstance(explainer.heat, str),
        "heat_why": explainer.heat if isinstance(explainer.heat, str) else None,
        "most_bytes": limits.body,
        "frostline": __version__,
    }


def _add_page(app: FastAPI) -> None:
    text = importlib.resources.files("frostline.serve").joinpath("page/index.html").read_text(encoding="utf-8")
    headers = {
        "Content-Security-Policy": policy(text),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return Response(text, media_type="text/html; charset=utf-8", headers=headers)


def policy(text: str) -> str:
    """The content security policy of a page: its own inline script and style, by their digests, and nothing from anywhere else."""
    allowed = {
        kind: " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()}'"
            for body in re.findall(rf"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        )
        for kind in ("script", "style")
    }
    return (
        f"default-src 'none'; script-src {allowed['script']}; style-src {allowed['style']}; connect-src 'self'; img-src data: blob:; "
        "media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
