"""Why an answer ended, in the words of any server -> what that means.  Pure."""

from __future__ import annotations

import enum
import re
from typing import Optional

__all__ = ["Ending", "ending_of", "remark_on"]


class Ending(enum.Enum):
    """What a finish_reason says of the answer before it."""

    WHOLE = "whole"
    CUT = "cut"  # at a limit, or by a filter: what came last may be half
    FAILED = "failed"  # no answer at all: an error that the server tells in one word
    UNKNOWN = "unknown"


#: All of these without case, "_", "-" and blanks: MAX_TOKENS, maxTokens and max-tokens are one.
_WHOLE = (
    "stop(ped|sequences?|str(ing)?|words?|token|criteria(met)?)?|eos(token(id)?)?"
    "|end(ed|of(text|turn)|turn)?"
    "|(tool|function)calls?|tooluse|completed?|done|finish(ed)?|final|success|succeeded|normal"
    "|pauseturn"
)
_FAILED = (
    "error|abort|cancel|fail|network|insufficient|malformed|unavailable|overload|timeout|timedout"
    "|exception|interrupt|disconnect|connection|ratelimit|unexpectedtool|toomanytool"
    "|missingthought|crash|killed|preempt|evict|busy|badgateway|nocapacity|deadline|invalidrequest"
)
_CUT = (
    "length|maxtoken|maxoutput|maxnewtoken|maxcompletion|maxmessage|limit|budget|contextwindow"
    "|truncat|filter|safety|sensitive|recitation|blocklist|blocked|prohibited|spii|moderation"
    "|guardrail|repetition|refus|policy|violat|unsafe|toxic|harm|copyright|censor|risk|exceeded"
    "|exhaust|outoftoken|incomplete|partial"
)
#: Those of them that name a limit of tokens.
_TOKENS = "length|token|maxoutput|maxcompletion|budget|contextwindow"


def ending_of(word: str) -> Ending:
    """What `word`, a finish_reason in any server's spelling, means."""
    bare = re.sub("[^a-z0-9]", "", word[:200].lower())
    bare = re.sub("^(finish|stop)reason", "", bare)  # as protocol buffers name them
    if re.fullmatch(_WHOLE, bare):
        return Ending.WHOLE
    if re.search(_FAILED, bare):
        return Ending.FAILED
    return Ending.CUT if re.search(_CUT, bare) else Ending.UNKNOWN


def remark_on(word: Optional[str], max_tokens: Optional[int] = None) -> str:
    """What to say of an answer that ended so, after "the answer "; "" if it is whole.

    Args:
        word: its finish_reason; None if there is none.
        max_tokens: the limit that was asked for.
    """
    if word is None or ending_of(word) is not Ending.CUT:
        return ""
    if re.search(_TOKENS, re.sub("[^a-z]", "", word[:200].lower())):
        asked = f" (max_tokens is {max_tokens})" if max_tokens else ""
        return f"was cut by a limit of tokens{asked}"
    return f"was cut: its finish_reason is {word[:60]!r}"
