"""JSON schemas of Python types, and JSON values held against them.

What tools and typed answers share: `describe` makes a schema of a type and the way
back from JSON, `validate` checks a value, `parse` reads a model's JSON, `problems`
says what is wrong and where.  Nothing here knows tools, models or servers.
"""
