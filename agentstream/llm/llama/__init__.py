"""What llama.cpp can do beyond chat completions, as dialects around that one."""
