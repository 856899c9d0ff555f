"""Plants faults, one at a time, and sees that the test which guards against each fails.

    python -m tests.kit.plant            plant them all; exit 1 if one survives
    python -m tests.kit.plant --list     what there is
    python -m tests.kit.plant once seam  only these rules

Everything happens in a copy of the package and the tests in a temporary directory.
`PLANTS` is the table: add rows for any promise the library makes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence

ROOT = Path(__file__).resolve().parents[2]
BOUND_S = 90.0  # for one run of pytest; a fault that makes a test hang is caught as well


class Plant(NamedTuple):
    """A fault: in `file`, the one occurrence of `right` becomes `wrong`; `test` must fail."""

    rule: str
    file: str
    right: str
    wrong: str
    test: str


MODEL = "agentstream/events/model.py"
FALLBACK = "agentstream/llm/fallback_call.py"
_FALLBACK = "tests/llm/test_fallback.py::test_"
WINDOW = "agentstream/llm/rate_limit/window.py"
_WINDOW = "tests/llm/rate_limit/test_window.py::test_"
_LIMIT = "tests/llm/rate_limit/test_limit.py::test_"
_RECORDED = "tests/testing/test_recorder.py::test_"
MEMORY = "agentstream/events/memory.py"
STREAM = "agentstream/events/stream.py"
PUBLISHING = "agentstream/events/publishing.py"
MAILBOX = "agentstream/events/mailbox.py"
RAISED = "agentstream/events/raised.py"
_BUS = "tests/events/test_stream.py::test_"
_BACK = "tests/events/test_mailbox.py::test_"
_VALUE = "tests/events/test_model.py::test_"
_KEPT = "tests/events/test_memory.py::test_"
_PROCESS = "tests/events/test_event_process.py::test_"
_RESTS = "tests/events/sqlite/test_checkpoints.py::test_"
_RESUMED = "tests/cli/test_resume.py::test_"
_APPROVED = "tests/cli/test_approve.py::test_"
_TALK = "tests/cli/test_talk.py::test_"
_TYPED = "tests/schema/test_output.py::test_"

PLANTS: List[Plant] = [
    Plant(
        "no window holds more requests than the limit",
        WINDOW,
        "            due = max(due, self._room_at(1, 1, rules.requests))",
        "            due = max(due, now)",
        f"{_WINDOW}no_window_holds_more_and_two_percent_less_at_most",
    ),
    Plant(
        "of processes the one that waits longest goes first",
        WINDOW,
        "        if due <= now and not before:",
        "        if due <= now:",
        f"{_WINDOW}of_processes_that_share_it_the_one_that_has_waited_longest_goes_first",
    ),
    Plant(
        "what was never sent costs nothing",
        "agentstream/llm/rate_limit/admission.py",
        "            share.give_back(request=True)",
        "            pass",
        f"{_LIMIT}what_was_never_sent_is_given_back_and_what_was_refused_is_not",
    ),
    Plant(
        "a 429 with Retry-After holds up everybody",
        "agentstream/llm/rate_limit/admission.py",
        "                self._limit.pause(asked)",
        "                pass",
        f"{_LIMIT}a_429_with_retry_after_holds_up_those_who_wait",
    ),
    Plant(
        "a cancel wakes who waits for a rate limit",
        "agentstream/llm/rate_limit/line.py",
        "        key = stop.add_callback(turn.wakeup.set)",
        "        key = stop.add_callback(int)",
        f"{_LIMIT}total_ends_a_wait",
    ),
    Plant(
        "no secret is in a cassette",
        "agentstream/testing/tape.py",
        "        taped.steps = _each_text(taped.steps, redact)",
        "        pass",
        f"{_RECORDED}no_secret_is_in_the_file",
    ),
    Plant(
        "a recording answers one request",
        "agentstream/testing/cassette.py",
        "            return left.popleft() if left else None",
        "            return left[0] if left else None",
        f"{_RECORDED}equal_requests_are_answered_in_their_order_each_once",
    ),
    Plant(
        "behind the first delta nobody else is asked",
        FALLBACK,
        "        if self.answer.begun:\n            raise error",
        "        if False:\n            raise error",
        _FALLBACK + "f06_a_client_whose_answer_broke_off_is_left_alone_too",
    ),
    Plant(
        "provider state goes home",
        FALLBACK,
        "without_state(request.messages, client.wrote)",
        "request.messages",
        _FALLBACK + "provider_state_goes_home_and_nowhere_else",
    ),
    Plant(
        "a paste is one message",
        "agentstream/cli/keyboard.py",
        "set enable-bracketed-paste on",
        "set enable-bracketed-paste off",
        _TALK + "a_paste_of_500_lines_is_one_message",
    ),
    Plant(
        "what failed is not told with the next question",
        "agentstream/cli/turns.py",
        "            self._tell(error)\n",
        "            self._tell(error)\n            self.chat.conversation.add(ChatMessage.user(content))\n",
        _TALK + "a_turn_that_fails_is_told_and_can_be_asked_again",
    ),
    Plant(
        "what is said at a terminal is its owner's",
        "agentstream/cli/keyboard.py",
        "os.O_WRONLY | os.O_CREAT | how, 0o600",
        "os.O_WRONLY | os.O_CREAT | how, 0o644",
        _TALK + "what_was_said_goes_with_the_next_question_and_is_kept",
    ),
    Plant(
        "doctor shows no secret",
        "agentstream/cli/examine.py",
        "    if name in _SECRET:\n        return",
        "    if name in _SECRET:\n        return str(value)\n        return",
        "tests/cli/test_doctor.py::test_it_says_what_would_be_used_and_where_that_comes_from",
    ),
    Plant(
        "one call tries a client after its pause",
        "agentstream/llm/pauses.py",
        "state.due <= now and not state.probe",
        "state.due <= now",
        "tests/llm/test_pauses.py::test_of_many_threads_one_tries",
    ),
    Plant(
        "branches do not pass a budget together",
        "agentstream/agent/budget.py",
        "sum(counts) <= most * _ROUNDED",
        "counts[0] + counts[2] <= most * _ROUNDED",
        "tests/agent/test_budget.py::test_f13_branches_that_race_for_the_last_of_it_do_not"
        "_pass_it_together",
    ),
    Plant(
        "an approval is of the call as it was asked",
        "agentstream/web/resting.py",
        '    if answer == "yes" and arguments is None and not reason:',
        '    if answer == "yes":',
        "tests/web/test_resting.py::test_what_is_no_answer_is_refused_and_changes_nothing",
    ),
    Plant(
        "Ctrl-C leaves a kept run to be resumed",
        "agentstream/cli/execute.py",
        "        handle.interrupt(str(interruption)",
        "        handle.cancel(str(interruption)",
        f"{_RESUMED}interrupted_by_signals_and_deadlines_it_says_what_goes_on",
    ),
    Plant(
        "a further try has the keys of the first",
        "agentstream/cli/execute.py",
        "workflow_id=once or workflow_id, once=once is not None)",
        "workflow_id=workflow_id, once=False)",
        f"{_RESUMED}a_further_try_has_the_keys_of_the_first",
    ),
    Plant(
        "a suspended run writes no result",
        "agentstream/cli/execute.py",
        "(given.json if rest else not view.has_shown(run.output))",
        "not view.has_shown(run.output)",
        f"{_APPROVED}a_workflow_within_rests_with_the_outer_one_and_is_followed_in_its_place",
    ),
    Plant(
        "steps that are not run again are told by who follows",
        "agentstream/cli/result.py",
        "(one for one in within if one not in done)",
        "(one for one in within)",
        f"{_APPROVED}a_workflow_within_rests_with_the_outer_one_and_is_followed_in_its_place",
    ),
    Plant(
        "an answered run goes on at once",
        "agentstream/web/resting.py",
        "            self._resume(root)\n        except Busy:",
        "            pass\n        except Busy:",
        "tests/web/test_resting.py::test_a_value_is_sent_and_the_run_goes_on",
    ),
    Plant(
        "a call that its process leaves has not failed",
        "agentstream/agent/tool_calls.py",
        "        is_left = keeper is not None and keeper.leaving",
        "        is_left = False",
        "tests/runtime/test_durable.py::test_a_call_that_the_process_leaves_has_not_failed",
    ),
    Plant(
        "one traceback for a kind of error",
        RAISED,
        "        if times == 1:",
        "        if times:",
        "tests/events/test_raised.py::test_each_kind_has_one_traceback_and_then_a_count",
    ),
    Plant(
        "a cut answer may fail a run",
        "agentstream/agent/run.py",
        '        if remark and self._agent.on_cut == "fail":',
        "        if False:",
        "tests/workflow/test_progress.py::test_a_cut_answer_fails_where_it_is_to",
    ),
    Plant(
        "a stream of events raises what its run failed with",
        "agentstream/runtime/follow.py",
        "    if raises:\n",
        "    if False:\n",
        "tests/runtime/test_runtime.py"
        "::test_stream_raises_what_the_run_failed_with_after_the_terminal_event",
    ),
    Plant(
        "an error's URL has no secret",
        "agentstream/llm/transport/session.py",
        "return Redactor(self.secrets())(display_url(url or self.url))",
        "return url or self.url",
        "tests/llm/test_where.py::test_an_error_names_the_url_without_secrets",
    ),
    Plant(
        "order",
        PUBLISHING,
        "            with lock.lock:\n                if self._publishing:",
        "            with threading.RLock():\n                if False:",
        _BUS + "i4_many_publishers_of_one_log_and_one_order_for_all_readers",
    ),
    Plant(
        "a typed answer: nothing is invented",
        "agentstream/schema/parse.py",
        "            if text[at + 1 : exc.pos].strip():",
        "            if False:",
        _TYPED + "nothing_is_invented",
    ),
    Plant(
        "a typed answer: no value changes any more",
        "agentstream/schema/growing.py",
        "            members = dict(self.members)\n",
        "            members = self.members\n",
        "tests/schema/test_growing.py::"
        "test_any_value_cut_anywhere_is_right_and_each_part_a_beginning",
    ),
    Plant(
        "a typed answer: a wrong one goes back",
        "agentstream/agent/output.py",
        "again = not wrong.cut and (free or self._left > 0)",
        "again = not wrong.cut and free",
        "tests/agent/test_output.py::"
        "test_a_wrong_answer_goes_back_with_its_problems_and_no_tool_is_wanted",
    ),
    Plant(
        "a typed answer: a refusal is remembered",
        "agentstream/llm/output/means.py",
        "        self.refused.add(",
        "        set().add(",
        "tests/llm/output/test_means.py::"
        "test_a_refused_schema_is_asked_for_by_other_means_and_remembered",
    ),
    Plant(
        "once",
        MAILBOX,
        "            self.cursor = place\n            if settled",
        "            self.cursor = min(place, 6)\n            if settled",
        _BACK + "h05_events_that_come_while_the_past_is_read_are_had_once",
    ),
    Plant(
        "many publishers",
        PUBLISHING,
        "for mailbox in subscribers.by_workflow.get(workflow_id, ()):",
        "for mailbox in sum(subscribers.by_workflow.values(), ()):",
        _BUS + "i4_many_publishers_of_many_workflows_are_never_mixed_up",
    ),
    Plant(
        "types",
        MAILBOX,
        "event[3] not in self._offered:\n            return\n",
        "event[3] not in self._offered:\n            pass\n",
        _BUS + "only_what_is_asked_for",
    ),
    Plant(
        "isolation: raising",
        RAISED,
        "        self.count += 1\n        kind",
        "        self.count += 1\n        raise\n        kind",
        _BUS + "u01_a_callback_that_raises_is_logged_and_counted_and_goes_on",
    ),
    Plant(
        "raising is counted",
        RAISED,
        "        self.count += 1\n",
        "        pass\n",
        _BUS + "u01_a_callback_that_raises_is_logged_and_counted_and_goes_on",
    ),
    Plant(
        "raising is logged with its traceback",
        RAISED,
        "logger.exception(\"a subscriber's callback raised",
        "logger.error(\"a subscriber's callback raised",
        _BUS + "u01_a_callback_that_raises_is_logged_and_counted_and_goes_on",
    ),
    Plant(
        "isolation: stuck",
        MAILBOX,
        "        place = event[2] if self.workflow_id is None else event[1]\n        self.fall",
        "        while self._waiting() >= self._max_queue:\n            time.sleep(0.01)\n"
        "        place = event[2] if self.workflow_id is None else event[1]\n        self.fall",
        _BUS + "u02_a_stuck_callback_delays_neither_publisher_nor_others",
    ),
    Plant(
        "a queue is bounded",
        MAILBOX,
        "self._waiting() < self._max_queue:\n            self._put(event)\n",
        "self._waiting() < 10**9:\n            self._put(event)\n",
        _BUS + "u02_a_stuck_callback_delays_neither_publisher_nor_others",
    ),
    Plant(
        "catch-up",
        MAILBOX,
        "            self._behind = True\n            self._put(_CATCH_UP)\n",
        "            pass\n",
        _BACK + "u02_a_slow_callback_catches_up_from_the_store",
    ),
    Plant(
        "catch-up: overflow again",
        MAILBOX,
        "        elif self.cursor < self._goal != UNKNOWN:\n",
        "        elif self.cursor < max(self._goal, self._newest):\n"
        "            self._goal = max(self._goal, self._newest)\n",
        _BACK + "u02_a_queue_that_overflows_again_while_it_is_read_back_loses_nothing",
    ),
    Plant(
        "seam",
        MAILBOX,
        "            if self.cursor < self._goal:\n                return\n        elif",
        "            if False:\n                return\n        elif",
        _BACK + "h05_events_that_come_while_the_past_is_read_are_had_once",
    ),
    Plant(
        "seam: two thousand",
        MAILBOX,
        "                self._goal = self._newest\n",
        "                self._goal = self.cursor\n",
        _BACK + "h05_two_thousand_subscribers_come_in_while_events_are_published",
    ),
    Plant(
        "events_missed",
        MAILBOX,
        "                self._tell_missed(self.cursor + 1, place - 1)\n",
        "                pass\n",
        _BACK + "u02_what_the_store_has_let_go_is_told_and_then_it_goes_on",
    ),
    Plant(
        "events_missed: the end gone too",
        MAILBOX,
        "        if self._end_offered:\n            self.finish()\n",
        "",
        _BACK + "u02_when_the_end_is_gone_too_the_iterator_still_ends",
    ),
    Plant(
        "events_missed: nothing kept follows",
        MAILBOX,
        "            self._tell_missed(self.cursor + 1, self._goal)",
        "            pass",
        _BACK + "u02_when_the_end_is_gone_too_the_iterator_still_ends",
    ),
    Plant(
        "OffsetGone",
        STREAM,
        "(last and after + 1 < first)",
        "False",
        _KEPT + "d10_history_that_is_not_there_is_refused_with_what_is",
    ),
    Plant(
        "OffsetGone: all of it",
        MEMORY,
        "            self._gone[workflow_id] = kept.last\n",
        "",
        _KEPT + "d10_history_that_is_not_there_is_refused_with_what_is",
    ),
    Plant(
        "close inside",
        MAILBOX,
        "        if thread is None or thread is threading.current_thread():\n",
        "        if thread is None:\n",
        _BUS + "close_from_inside_the_callback_returns_at_once_and_delivers_what_was_queued",
    ),
    Plant(
        "close delivers",
        MAILBOX,
        "            self._put(_CLOSE)\n",
        "            self._renew_queue()\n            self._put(_CLOSE)\n",
        _BACK + "close_of_the_stream_delivers_what_is_still_in_the_store",
    ),
    Plant(
        "nothing after close",
        MAILBOX,
        "            limit = self._newest if self._closed else UNKNOWN\n",
        "            limit = UNKNOWN\n",
        _BACK + "r11_close_delivers_what_was_still_in_the_store_and_nothing_after",
    ),
    Plant(
        "close is bounded",
        MAILBOX,
        "        thread.join(None if timeout is None else threads.bounded(timeout))\n",
        "        thread.join()\n",
        _BUS + "u02_close_does_not_wait_for_ever_for_a_stuck_callback",
    ),
    Plant(
        "calls from inside a callback",
        PUBLISHING,
        "        frozen = data if data.__class__ is FrozenDict else _frozen(data)\n",
        "        with self._lock:\n            frozen = _frozen(data)\n",
        _BUS + "u03_no_lock_is_held_while_a_value_is_written_down",
    ),
    Plant(
        "no lock around a callback",
        MAILBOX,
        "                    callback(event)\n",
        "                    with self._lock:\n                        callback(event)\n",
        _BUS + "u03_no_lock_is_held_while_a_callback_runs",
    ),
    Plant(
        "the terminal event is the last",
        PUBLISHING,
        "                    if not log.ended:\n",
        "                    if True:\n",
        _BUS + "i1_nothing_is_taken_after_the_terminal_event",
    ),
    Plant(
        "iterators end",
        MAILBOX,
        "            if kind in TERMINAL and self.workflow_id is not None:\n",
        "            if False:\n",
        _BUS + "iterators_end_after_the_terminal_event",
    ),
    Plant(
        "iterators of an ended workflow end",
        MAILBOX,
        "            if ended:\n",
        "            if False:\n",
        _BUS + "of_a_workflow_that_has_ended_there_is_its_history_and_then_the_end",
    ),
    Plant(
        "dropped iterators free themselves",
        STREAM,
        "        self._lock.later.append(functools.partial(self._remove, mailbox))\n\n",
        "        pass\n\n",
        _BUS + "a_dropped_iterator_frees_itself",
    ),
    Plant(
        "dropping takes no lock",
        STREAM,
        "        self._lock.later.append(functools.partial(self._remove, mailbox))\n\n",
        "        self._remove(mailbox)\n\n",
        _BUS + "a_dropped_iterator_waits_for_no_lock",
    ),
    Plant(
        "Ctrl-C within an append",
        PUBLISHING,
        "                            log.ended = log.unsure = True\n",
        "                            pass\n",
        _BUS + "i4_ctrl_c_within_an_append_leaves_neither_gap_nor_double",
    ),
    Plant(
        "events cannot be changed",
        MODEL,
        "    __setitem__ = __delitem__ = clear = pop = popitem = _refuse\n",
        "    __delitem__ = clear = pop = popitem = _refuse\n",
        _VALUE + "u10_data_cannot_be_changed",
    ),
    Plant(
        "what JSON lacks",
        MODEL,
        "return value if math.isfinite(value) else None",
        "return value",
        _VALUE + "d11_what_json_lacks_is_written_by_rule",
    ),
    Plant(
        "memory is bounded",
        MEMORY,
        "            del entries[oldest]\n",
        "            pass\n",
        _KEPT + "i8_memory_stays_bounded",
    ),
    Plant(
        "fork: fresh locks",
        STREAM,
        "    def _after_fork(self) -> None:\n        self._lock.renew()\n",
        "    def _after_fork(self) -> None:\n",
        _PROCESS + "r07_a_child_can_publish_though_threads_publish_at_the_fork",
    ),
    Plant(
        "exit",
        STREAM,
        "        self.close(timeout=1.0)\n",
        "        self.close(timeout=1000.0)\n",
        _PROCESS + "r04_exit_does_not_hang_on_a_stuck_callback",
    ),
    Plant(
        "turns",
        "agentstream/agent/conversations.py",
        "connection.execute(begin)",
        "pass",
        "tests/agent/test_conversations.py::test_a_kill_in_the_middle_leaves_whole_turns_and_a_file_"
        "that_works",
    ),
    Plant(
        "keep",
        "agentstream/agent/run.py",
        "and not answered:",
        "and True:",
        "tests/agent/test_conversations.py::test_a_store_that_fails_hides_no_error_and_is_asked_once",
    ),
    Plant(
        "made once",
        "agentstream/runtime/once.py",
        'if state.status == "completed":',
        'if state.status != "running":',
        "tests/runtime/test_once.py::test_what_failed_or_was_stopped_is_made_again_under_an_id_of_its_"
        "own",
    ),
    Plant(
        "lock",
        "agentstream/runtime/handle.py",
        "            self._lock.release()",
        "            pass",
        "tests/runtime/test_lock.py::test_a_run_holds_it_until_it_is_over_however_that_ends",
    ),
    Plant(
        "deadline",
        "agentstream/runtime/handle.py",
        "threads.arm(alarm, time.monotonic() + grace)",
        "pass",
        "tests/runtime/test_options.py::test_what_does_not_stop_is_left_behind_after_grace",
    ),
    Plant(
        "at most",
        "agentstream/workflow/branches.py",
        "min(len(work), at_most or len(work)) - 1",
        "len(work) - 1",
        "tests/workflow/test_map.py::test_at_most_so_many_are_under_way_and_they_begin_in_order",
    ),
    Plant(
        "never began",
        "agentstream/events/sqlite/interrupted.py",
        "    if last or name:",
        "    if True:",
        "tests/events/test_run_state.py::test_a_queued_run_whose_process_died_never_began_and_has_not_"
        "failed",
    ),
    Plant(
        "late words",
        "agentstream/events/sqlite/statements.py",
        " for name, last in reached.items() if runs[name].refused is None],",
        " for name, last in reached.items()],",
        _RESTS + "a_fence_keeps_out_what_one_process_says_of_an_earlier_stint",
    ),
    Plant(
        "recover",
        "agentstream/events/sqlite/interrupted.py",
        "kept.can_be_resumed and (kept.deaths or 0) < (kept.recover or 0):",
        "kept.can_be_resumed:",
        _RESTS + "a_run_outlives_as_many_deaths_as_it_may",
    ),
    Plant(
        "stopped at rest",
        "agentstream/events/sqlite/statements.py",
        "        interrupted.stop_if_asked(connection, event.workflow_id)\n",
        "",
        _RESTS + "a_stop_that_comes_as_a_run_is_left_is_not_lost",
    ),
    Plant(
        "each event once",
        "agentstream/events/sqlite/store.py",
        "        events = [event for event in events if not self._is_ours(event)]\n",
        "",
        _RESTS + "each_event_is_had_once_and_in_order_when_the_owner_changes",
    ),
    Plant(
        "asked again",
        "agentstream/mcp/asking.py",
        "or not asked.repeatable or",
        "or",
        "tests/mcp/test_http.py::test_m07_a_broken_stream_is_asked_for_again_if_the_tool_may_be_called"
        "_twice",
    ),
    Plant(
        "no key of ours",
        "agentstream/mcp/environment.py",
        "    return {**found, **(own or {})}",
        "    return {**os.environ, **found, **(own or {})}",
        "tests/mcp/test_stdio.py::test_m13_it_inherits_no_key_of_ours_and_leaks_none_of_its_own",
    ),
    Plant(
        "all it has started",
        "agentstream/mcp/process.py",
        "os.killpg(self._process.pid, number)",
        "os.kill(self._process.pid, number)",
        "tests/mcp/test_stdio.py::test_closing_ends_it_and_what_it_has_started",
    ),
    Plant(
        "woken in time",
        "agentstream/threads/clock.py",
        "        if self._until > when or",
        "        if",
        "tests/threads/test_clock.py::test_an_earlier_alarm_is_not_kept_waiting_by_a_later_one",
    ),
    Plant(
        "spans hold no content unless asked",
        "agentstream/otel/beginnings.py",
        "            if self._content:\n                from agentstream.otel.content import asked",
        "            if True:\n                from agentstream.otel.content import asked",
        "tests/otel/test_spans.py::test_a_request_a_tool_and_an_agent_say_what_they_are",
    ),
    Plant(
        "a resumed run goes on in its trace",
        "agentstream/otel/beginnings.py",
        '        return {**data, "traceparent": mine} if mine else data',
        "        return data",
        "tests/otel/test_instrumentation.py::"
        "test_the_tree_of_a_run_that_another_process_resumes_is_the_drawn_one",
    ),
    Plant(
        "an end is of the oldest attempt",
        "agentstream/otel/spans.py",
        "            return found[0] if found else None",
        "            return found[-1] if found else None",
        "tests/otel/test_spans.py::test_what_is_open_is_bounded_and_what_was_missed_is_ended",
    ),
    Plant(
        "a model makes up no series",
        "agentstream/web/metrics.py",
        "            if len(known) >= _MOST_VALUES:",
        "            if False:",
        "tests/web/test_metrics.py::test_labels_are_escaped_and_bounded",
    ),
    Plant(
        "nothing is counted before somebody asks",
        "agentstream/web/metrics.py",
        "        threads.after_fork(self)\n\n    def _after_fork",
        "        threads.after_fork(self)\n        self._begin()\n\n    def _after_fork",
        "tests/web/test_metrics.py::test_what_happened_is_counted_from_the_first_request_on",
    ),
    Plant(
        "a log line holds no key",
        "agentstream/logs/formatter.py",
        "        return _SECRET.sub(_mask, self._redact(replace_surrogates(text)))",
        "        return replace_surrogates(text)",
        "tests/logs/test_formatter.py::test_an_exception_is_there_without_its_secrets",
    ),
    Plant(
        "flushed",
        "agentstream/jobs/jobs.py",
        "            raise\n        self._flush()",
        "            raise",
        "tests/jobs/test_work.py::test_k22_the_end_is_in_the_log_when_a_worker_leaves_by_exit",
    ),
    Plant(
        "told to one",
        "agentstream/events/redis/run_scripts.py",
        "  call('ZADD', key, NOW + pause * 2 ^ math.min(calls - 1, 6), w)\n",
        "",
        "tests/jobs/test_jobs.py::test_k19_a_message_that_is_lost_is_sent_again",
    ),
    Plant(
        "sent again",
        "agentstream/jobs/jobs.py",
        "due = 0.0 if send is None else self._resend",
        "due = 0.0 if send is None else 1e9",
        "tests/jobs/test_jobs.py::test_k19_a_message_that_is_lost_is_sent_again",
    ),
    Plant(
        "queued is taken",
        "agentstream/events/redis/scripts.py",
        " or f[1] == '' then return {'has'} end",
        " then return {'has'} end",
        "tests/events/redis/test_queue.py::test_k12_the_id_of_one_that_is_queued_is_nobodys_to_begin",
    ),
    Plant(
        "stopped while queued",
        "agentstream/events/sqlite/statements.py",
        " AND owner IS NOT NULL",
        "",
        "tests/jobs/test_jobs.py::test_k23_one_that_is_queued_is_stopped_at_once_and_ended_for_its_"
        "worker",
    ),
    Plant(
        "one executes",
        "agentstream/jobs/jobs.py",
        '        if status in ENDED:\n            return JobRun(name, "ended"',
        '        if status in ENDED and not status:\n            return JobRun(name, "ended"',
        "tests/jobs/test_jobs.py::test_k18_of_many_deliveries_at_once_one_executes",
    ),
]


def occurrences(plant: Plant, root: Path = ROOT) -> int:
    """How often the snippet stands in the source; anything but 1 needs a new snippet."""
    return (root / plant.file).read_text(encoding="utf-8").count(plant.right)


class Copy:
    """A copy of the package and its tests, in which faults are planted."""

    def __init__(self, root: Path = ROOT) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="agentstream-plant-"))
        ignore = shutil.ignore_patterns("__pycache__")
        for name in ("agentstream", "tests"):
            shutil.copytree(root / name, self.path / name, ignore=ignore)
        shutil.copy(root / "setup.cfg", self.path)

    def __enter__(self) -> Copy:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def passes(self, tests: Sequence[str]) -> bool:
        """True if all `tests` pass in the copy; False too if they take too long."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.path),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        try:
            done = subprocess.run(
                command,
                cwd=self.path,
                env=environment,
                timeout=BOUND_S,
                check=False,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except subprocess.TimeoutExpired:
            return False
        if done.returncode not in (0, 1):  # 1: tests failed; others: pytest itself did
            raise RuntimeError(done.stdout.decode(errors="replace")[-2000:])
        return done.returncode == 0

    def catches(self, plant: Plant) -> bool:
        """Plant the fault, run its test, take the fault out; True if the test failed."""
        file = self.path / plant.file
        right = file.read_text(encoding="utf-8")
        file.write_text(right.replace(plant.right, plant.wrong), encoding="utf-8")
        try:
            return not self.passes([plant.test])
        finally:
            file.write_text(right, encoding="utf-8")


def run(plants: Sequence[Plant]) -> bool:
    """Plant each; print a table.  True if every fault was caught."""
    good = True
    sound: Dict[str, bool] = {}
    width = max(len(plant.rule) for plant in plants)
    with Copy() as copy:
        whole = copy.passes(sorted({plant.test for plant in plants}))
        for plant in plants:
            began = time.monotonic()
            if not whole and plant.test not in sound:
                sound[plant.test] = copy.passes([plant.test])
            if occurrences(plant, copy.path) != 1:
                verdict = f"NO PLACE: the snippet occurs {occurrences(plant, copy.path)} times"
            elif not sound.get(plant.test, whole):
                verdict = "FAILS WITHOUT IT"
            else:
                verdict = "caught" if copy.catches(plant) else "SURVIVED"
            good = good and verdict == "caught"
            seconds = time.monotonic() - began
            print(f"{plant.rule:{width}}  {verdict:9} {seconds:5.1f} s  {plant.test}", flush=True)
    return good


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kit.plant", description=__doc__)
    parser.add_argument("rules", nargs="*", help="plant only these (default: all)")
    parser.add_argument("--list", action="store_true", help="list the rules and their tests")
    options = parser.parse_args(arguments)
    plants = [p for p in PLANTS if not options.rules or p.rule in options.rules]
    unknown = set(options.rules) - {plant.rule for plant in PLANTS}
    if unknown:
        parser.error(f"no such rule: {', '.join(sorted(unknown))}")
    if options.list:
        for plant in plants:
            print(f"{plant.rule}: {plant.file}, {plant.test}")
        return 0
    return 0 if run(plants) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
