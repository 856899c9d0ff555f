"""An answer that is a value: it grows while it arrives, and is checked at the end."""

from dataclasses import dataclass
from typing import List

from agentstream import Agent, LlamaClient, OutputInvalid


@dataclass
class Recipe:
    """What to cook."""

    title: str
    minutes: int
    steps: List[str]


with LlamaClient("http://127.0.0.1:8080") as client:
    cook = Agent("cook", client=client, output=Recipe)
    try:
        for value in cook.stream("Pancakes for two").values():
            print(value)
    except OutputInvalid as error:
        print(error, [problem.where() for problem in error.problems])
