"""A function that the model may call."""

from agentstream import Agent, LlamaClient, tool


@tool
def get_weather(city: str) -> str:
    """The weather in a city now."""
    return f"18 degrees and sunny in {city}"


# "auto" serves models whose chat template knows no tools, too.
with LlamaClient("http://127.0.0.1:8080", tool_mode="auto") as client:
    agent = Agent("helper", client=client, tools=[get_weather])
    output = agent.run("What is the weather in Paris?")
    print(output.text, f"({output.tool_calls_count} tool call)")
