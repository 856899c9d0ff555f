"""A server made with the official Python SDK, run by an environment that has it.

    python mcp_sdk_server.py stdio FILE
    python mcp_sdk_server.py http PORT FILE

FILE gets a line for each call that is cancelled.  Seven tools, two a page.
"""

import sys

import anyio
import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

PAGE = 2


def described(name, properties=(), hints=None):
    schema = {"type": "object", "properties": {key: {"type": kind} for key, kind in properties}}
    return types.Tool(name=name, description=f"Tool {name}", input_schema=schema, annotations=hints)


READS = types.ToolAnnotations(read_only_hint=True)
TOOLS = [
    described("add", [("a", "integer"), ("b", "integer")], READS),
    described("echo", [("text", "string")], READS),
    described("fail"),
    described("raise"),
    described("slow", [("seconds", "number"), ("steps", "integer")]),
    described("mixed"),
    described("with.dots", [("text", "string")]),
]
TOOLS[1].input_schema["properties"]["text"]["x-mcp-header"] = "Text"


async def list_tools(ctx, params):
    start = int(params.cursor) if params is not None and params.cursor else 0
    more = str(start + PAGE) if start + PAGE < len(TOOLS) else None
    return types.ListToolsResult(tools=TOOLS[start : start + PAGE], next_cursor=more)


async def call_tool(ctx, params):
    name, given = params.name, params.arguments or {}
    if name == "add":
        total = given["a"] + given["b"]
        return texts(str(total), structured_content={"result": total})
    if name in ("echo", "with.dots"):
        return texts(given["text"])
    if name == "fail":
        return types.CallToolResult(content=[text("out of luck")], is_error=True)
    if name == "slow":
        return await slow(ctx, given)
    if name == "mixed":
        link = types.ResourceLink(type="resource_link", name="one", uri="note://one")
        image = types.ImageContent(type="image", data="aGVsbG8=", mime_type="image/png")
        return types.CallToolResult(
            content=[text("first"), image, link], structured_content={"n": 1}
        )
    if name == "raise":
        raise ValueError("a fault of the server's")
    raise ValueError(f"no tool {name}")


async def slow(ctx, given):
    steps = given.get("steps", 0)
    try:
        for step in range(steps):
            await ctx.session.send_progress_notification("a token", step, steps)
            await anyio.sleep(given["seconds"] / steps)
        if not steps:
            await anyio.sleep(given["seconds"])
    except anyio.get_cancelled_exc_class():
        with open(FILE, "a") as file:
            file.write("cancelled\n")
        raise
    return texts("done")


def text(value):
    return types.TextContent(type="text", text=value)


def texts(*values, **more):
    return types.CallToolResult(content=[text(value) for value in values], **more)


async def list_resources(ctx, params):
    return types.ListResourcesResult(resources=[types.Resource(name="one", uri="note://one")])


async def read_resource(ctx, params):
    contents = [types.TextResourceContents(uri=params.uri, text="the first note")]
    return types.ReadResourceResult(contents=contents)


async def list_prompts(ctx, params):
    wanted = [types.PromptArgument(name="name", required=True)]
    return types.ListPromptsResult(prompts=[types.Prompt(name="greet", arguments=wanted)])


async def get_prompt(ctx, params):
    said = text(f"Greet {params.arguments['name']}.")
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=said)])


SERVER = Server(
    "official",
    version="7",
    instructions="Add, or echo.",
    on_list_tools=list_tools,
    on_call_tool=call_tool,
    on_list_resources=list_resources,
    on_read_resource=read_resource,
    on_list_prompts=list_prompts,
    on_get_prompt=get_prompt,
)


async def over_stdio():
    async with stdio_server() as (read, write):
        await SERVER.run(read, write, SERVER.create_initialization_options())


def over_http(port):
    import uvicorn

    uvicorn.run(SERVER.streamable_http_app(), host="127.0.0.1", port=port, log_level="error")


if sys.argv[1] == "stdio":
    FILE = sys.argv[2]
    anyio.run(over_stdio)
else:
    FILE = sys.argv[3]
    over_http(int(sys.argv[2]))
