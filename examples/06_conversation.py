"""A conversation that is kept in a file between two questions."""

from agentstream import Agent, Conversation, LlamaClient

with LlamaClient("http://127.0.0.1:8080") as client:
    agent = Agent("tutor", client=client, system_prompt="You are a patient tutor.")
    conversation = Conversation()
    print(agent.run("What is a prime number?", conversation=conversation).text)
    conversation.save("lesson.json")

    later = Conversation.load("lesson.json")
    print(agent.run("Name three of them.", conversation=later).text)
    print(len(later.messages), "messages")
