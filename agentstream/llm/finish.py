"""Why an answer ended, in the words of any server -> what that means.  Pure."""

from __future__ import annotations

import enum
import re

__all__ = ["Ending", "ending_of"]


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


def ending_of(word: str) -> Ending:
    """What `word`, a finish_reason in any server's spelling, means."""
    bare = re.sub("[^a-z0-9]", "", word[:200].lower())
    bare = re.sub("^(finish|stop)reason", "", bare)  # as protocol buffers name them
    if re.fullmatch(_WHOLE, bare):
        return Ending.WHOLE
    if re.search(_FAILED, bare):
        return Ending.FAILED
    return Ending.CUT if re.search(_CUT, bare) else Ending.UNKNOWN
