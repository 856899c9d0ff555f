"""Conversations that are kept between processes: the interface of a store, and one in a file.

A store appends: a run's turn is written whole, in one transaction, when the run has
ended.  So two runs that answer in one conversation at the same time lose nothing; each
was told what there was when it began, and its turn stands where it ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
import urllib.parse
from abc import ABC, abstractmethod
from typing import (
    Any,
    Callable,
    ContextManager,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from agentstream import checks, threads
from agentstream.agent.conversation import (
    Conversation,
    Entry,
    entry_of,
    last_turn,
    message_of,
    trimmed,
)
from agentstream.errors import ConfigError, LogError
from agentstream.events.entry import check_id
from agentstream.events.sqlite.paths import checked_path
from agentstream.llm.messages import ChatMessage

__all__ = ["ConversationStore", "Conversations", "StoredConversation"]

_APPLICATION = 0x61676368  # "agch"
_VERSION = 1
_READ, _WRITE = "BEGIN", "BEGIN IMMEDIATE"

_TABLES = (
    "CREATE TABLE messages (id INTEGER PRIMARY KEY AUTOINCREMENT, conversation TEXT NOT NULL, "
    "added REAL NOT NULL, message TEXT NOT NULL)",
    "CREATE INDEX messages_of ON messages (conversation, id)",
    f"PRAGMA application_id={_APPLICATION}",
    f"PRAGMA user_version={_VERSION}",
)


class ConversationStore(ABC):
    """Keeps conversations by a key, a user's id say; `get` gives them to runs.

    For a database of your own inherit this and write `read`, `append` and `delete`;
    docs/embedding.rst has Django's ORM and SQLAlchemy.

    Args:
        max_tokens, estimate, keep: as in `Conversation`.  The budget bounds what is
            read and sent; what is over it stays in the store.

    Raises:
        ConfigError: a setting cannot be used.
    """

    def __init__(
        self,
        *,
        max_tokens: Optional[int] = None,
        estimate: Optional[Callable[[ChatMessage], int]] = None,
        keep: str = "completed",
    ) -> None:
        self._settings: Dict[str, Any] = {
            "max_tokens": max_tokens,
            "estimate": estimate,
            "keep": keep,
        }
        Conversation(**self._settings)  # what cannot be used is refused here

    def get(self, key: str) -> StoredConversation:
        """The conversation of that key; an empty one where there is none yet.

        Raises:
            ConfigError: the key is no text of 1 to 256 characters.
        """
        check_id("a conversation's key", key)
        return StoredConversation(self, key, **self._settings)

    @abstractmethod
    def read(self, key: str) -> Iterable[Mapping[str, Any]]:
        """The messages as JSON values, the newest first; it may be left before its end."""

    @abstractmethod
    def append(self, key: str, messages: Sequence[Mapping[str, Any]]) -> None:
        """Add messages, JSON values as `read` gives them, the oldest first.

        All of them or none, and none of another turn between them: in one transaction
        that no other writer enters.
        """

    @abstractmethod
    def delete(self, key: str) -> bool:
        """Forget a conversation; False if there was nothing in it."""

    def undo(self, key: str) -> List[Mapping[str, Any]]:
        """Forget a conversation's last turn; returns its messages, the oldest first.

        Written with the three above: another process that adds meanwhile may be undone,
        too.  A store that can do it in one transaction overrides it.
        """
        found = list(self.read(key))[::-1]
        turn = found[len(found) - _length_of_last_turn(found) :]
        if turn:
            self.delete(key)
            if len(turn) < len(found):
                self.append(key, found[: len(found) - len(turn)])
        return turn


def _length_of_last_turn(found: Sequence[Mapping[str, Any]]) -> int:
    return len(last_turn([message_of(entry, number) for number, entry in enumerate(found)]))


class StoredConversation(Conversation):
    """A `Conversation` in a store: it has what any process has added, at each look.

    Any number of runs may use it at once.
    """

    def __init__(self, store: ConversationStore, key: str, **settings: Any) -> None:
        self._store = store
        self._key = key
        super().__init__(**settings)

    def __repr__(self) -> str:
        return f"<StoredConversation in {self._store!r}>"

    @property
    def key(self) -> str:
        """Its key in the store."""
        return self._key

    def _read(self) -> Sequence[Entry]:
        found: List[Entry] = []
        total = 0
        for number, entry in enumerate(self._store.read(self._key)):
            message = message_of(entry, number)
            found.append((message, self._estimate(message)))
            total += found[-1][1]
            if self.max_tokens is not None and total > self.max_tokens and message.role == "user":
                break  # a whole turn is over the budget, and so is what was before it
        found.reverse()
        return trimmed(found, self.max_tokens)

    def _write(self, messages: Sequence[ChatMessage]) -> None:
        self._store.append(self._key, [entry_of(message) for message in messages])

    def clear(self) -> None:
        """Forget everything, in the store too."""
        self._store.delete(self._key)

    def undo(self) -> List[ChatMessage]:
        """See `Conversation.undo`; in the store too."""
        turn = self._store.undo(self._key)
        return [message_of(entry, number) for number, entry in enumerate(turn)]

    def in_use(self) -> ContextManager[None]:
        """Hold nothing: a store's conversation takes any number of runs."""
        return contextlib.nullcontext()


class Conversations(ConversationStore):
    """Conversations in an SQLite file, for any number of threads and processes.

        chats = Conversations("chats.db", max_tokens=8000)
        runtime.run(agent, text, conversation=chats.get(user))

    A turn that has been added survives the process, and the machine.  A process that
    is killed in mid-turn leaves nothing of that turn.  Nothing is held open between two
    calls: it need not be closed, and may be made before a fork.

    Args:
        path: the file; made if there is none, readable for its owner only.  On a disk of
            this machine; it can be no `SqliteStore`'s.
        max_tokens, estimate, keep: as in `Conversation`.  The budget bounds what is
            read and sent; what is over it stays in the file.
        busy_timeout: seconds to wait for another process that writes.

    Raises:
        ConfigError: an argument cannot be used.
        LogError: the file cannot be used, and why; the methods raise it too.
    """

    def __init__(
        self,
        path: Union[str, os.PathLike[str]],
        *,
        max_tokens: Optional[int] = None,
        estimate: Optional[Callable[[ChatMessage], int]] = None,
        keep: str = "completed",
        busy_timeout: float = 10.0,
    ) -> None:
        super().__init__(max_tokens=max_tokens, estimate=estimate, keep=keep)
        self._busy_timeout: float = checks.seconds("busy_timeout", busy_timeout)
        if path == ":memory:":
            reason = "must be the name of a file: a Conversation by itself is in memory"
            raise ConfigError.about("path", reason, "Conversations")
        self._path = checked_path(path)
        self._lock = threading.RLock()
        self._make()
        with self._transaction() as connection:
            self._prepare(connection)
        threads.after_fork(self)

    def __repr__(self) -> str:
        return f"<Conversations {self._path!r}>"

    def keys(self) -> List[str]:
        """The keys of the conversations there are, the one that was added to last first."""
        with self._transaction(_READ) as connection:
            found = connection.execute(
                "SELECT conversation FROM messages GROUP BY conversation ORDER BY max(id) DESC"
            ).fetchall()
        return [key for (key,) in found]

    def read(self, key: str) -> Iterator[Mapping[str, Any]]:
        """See `ConversationStore.read`."""
        with self._transaction(_READ) as connection:
            found = connection.execute(
                "SELECT message FROM messages WHERE conversation = ? ORDER BY id DESC", (key,)
            ).fetchall()
        return (_decoded(text) for (text,) in found)

    def append(self, key: str, messages: Sequence[Mapping[str, Any]]) -> None:
        """See `ConversationStore.append`."""
        now = time.time()
        rows: List[Tuple[str, float, str]] = [(key, now, _encoded(one)) for one in messages]
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO messages (conversation, added, message) VALUES (?, ?, ?)", rows
            )

    def delete(self, key: str) -> bool:
        """See `ConversationStore.delete`."""
        with self._transaction() as connection:
            done = connection.execute("DELETE FROM messages WHERE conversation = ?", (key,))
            return done.rowcount > 0

    def undo(self, key: str) -> List[Mapping[str, Any]]:
        """See `ConversationStore.undo`; in one transaction."""
        with self._transaction() as connection:
            rows = connection.execute(
                "SELECT id, message FROM messages WHERE conversation = ? ORDER BY id", (key,)
            ).fetchall()
            found = [_decoded(text) for _, text in rows]
            length = _length_of_last_turn(found)
            ids = [(number,) for number, _ in rows[len(rows) - length :]]
            connection.executemany("DELETE FROM messages WHERE id = ?", ids)
        return found[len(found) - length :]

    # --- the file ---------------------------------------------------------------------------

    def _make(self) -> None:
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            pass
        except OSError as error:
            raise self._failure(error.strerror or "it cannot be made") from None

    @contextlib.contextmanager
    def _transaction(self, begin: str = _WRITE) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction, which no other writer enters."""
        url = f"file:{urllib.parse.quote(os.fsencode(self._path))}?mode=rw"
        with self._lock:  # held across a fork: a child must not copy a database in use
            try:
                with contextlib.closing(
                    sqlite3.connect(url, uri=True, timeout=self._busy_timeout, isolation_level=None)
                ) as connection:
                    connection.execute("PRAGMA secure_delete=ON")
                    connection.execute(begin)
                    yield connection
                    connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._failure(str(error)) from error

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make the tables, if the file is empty."""
        kind = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            for statement in _TABLES:
                connection.execute(statement)
        elif kind != _APPLICATION:
            raise self._failure("it is an SQLite database of something else")
        elif version != _VERSION:
            raise self._failure(f"its tables are of version {version}, not {_VERSION}")

    def _failure(self, why: str) -> LogError:
        return LogError(
            f"the conversations in {self._path} cannot be used: {why}", retryable="locked" in why
        )

    def _before_fork(self) -> None:
        self._lock.acquire()

    def _after_fork_in_parent(self) -> None:
        self._lock.release()

    def _after_fork(self) -> None:
        self._lock = threading.RLock()


def _encoded(message: Mapping[str, Any]) -> str:
    try:
        return json.dumps(message)
    except (TypeError, ValueError, RecursionError):
        raise ConfigError("a message holds what JSON cannot: it is not added") from None


def _decoded(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}
