"""An MCP server of bytes: it answers each call with the JSON text that its argument stands for.

The argument is a Python expression of bytes, which need not be JSON nor UTF-8. Before each answer a line is
written that is no message, as programs do that were never meant to speak a protocol.
"""

from __future__ import annotations

import json
import sys
from typing import Any

BODY = eval(sys.argv[1])
TOOL = {"name": "t", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}}


def send(message: bytes) -> None:
    sys.stdout.buffer.write(message + b"\n")
    sys.stdout.buffer.flush()


def answer(request: dict[str, Any], result: dict[str, Any]) -> None:
    send(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode())


for line in sys.stdin:
    asked = json.loads(line)
    match asked.get("method") if "id" in asked else None:
        case None:
            pass
        case "initialize":
            version = asked["params"]["protocolVersion"]
            about = {"name": "raw", "version": "1"}
            answer(asked, {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": about})
        case "tools/list":
            answer(asked, {"tools": [TOOL]})
        case "tools/call":
            send(b"Starting...")
            beginning = b'{"jsonrpc":"2.0","id":%d,"result":{"content":[{"type":"text","text":' % asked["id"]
            send(beginning + BODY + b"}]}}")
        case _:
            send(b'{"jsonrpc":"2.0","id":%d,"error":{"code":-32601,"message":"no"}}' % asked["id"])
