"""Serves the page at /, one for models that generate and one for pooling models: the files of `page/`, with a content
policy that lets them load from and call this server only.

Knows file names; the page's own code knows the API.
"""

from importlib.resources import files
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response

_FOLDER = Path(str(files("outrider.server"))) / "page"
_NAMES = frozenset(path.name for path in _FOLDER.iterdir())
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


async def page(request: Request) -> Response:
    """The page, or one of its files."""
    generates = request.app.state.front.info.pooling is None
    name = request.path_params.get("name", "index.html" if generates else "similarity.html")
    if name not in _NAMES:
        raise HTTPException(404)
    return FileResponse(_FOLDER / name, headers=_HEADERS)
