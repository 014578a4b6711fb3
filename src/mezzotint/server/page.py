"""The playground: one file that needs nothing else, and the headers that hold it to that."""

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from fastapi.responses import Response

PAGE = Path(__file__).parent / "page.html"


@cache
def page_parts() -> tuple[str, str]:
    """The page, and the policy that lets it run its own script, use its own style, talk to its own server and do nothing else."""
    text = PAGE.read_text(encoding="utf-8")

    def digest(tag: str) -> str:
        inside = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert inside is not None
        return "'sha256-" + base64.b64encode(hashlib.sha256(inside[1].encode()).digest()).decode() + "'"

    allowed = f"script-src {digest('script')}; style-src {digest('style')}; connect-src 'self'; img-src data:"
    return text, f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def page_response() -> Response:
    text, policy = page_parts()
    headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}
    return Response(text, media_type="text/html", headers=headers)
