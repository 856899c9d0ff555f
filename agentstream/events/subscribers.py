"""Subscribers: the mailboxes of a stream, by what they want."""

from __future__ import annotations

from typing import AbstractSet, Callable, Dict, FrozenSet, Iterable, List, Optional, Tuple

from agentstream.events.mailbox import Mailbox
from agentstream.events.model import Event

__all__ = ["Subscribers"]

Mailboxes = Tuple[Mailbox, ...]


class Subscribers:
    """Which mailboxes an event is offered to.  Used under the stream's lock.

    A signal handler may subscribe or leave between any two lines of whoever
    holds that lock: the tuples are made of a dict, and again if it has changed.

    Attributes:
        everything: those of all workflows.
        by_workflow: those of one, by its id.  Both hold tuples that are replaced
            when they change, so that publishing reads them as they are.
    """

    def __init__(self) -> None:
        self.everything: Mailboxes = ()
        self.by_workflow: Dict[str, Mailboxes] = {}
        self._mailboxes: Dict[Mailbox, None] = {}
        self._missed = 0  # by those that have left

    def __len__(self) -> int:
        return len(self._mailboxes)

    @property
    def missed(self) -> int:
        """Events that they have missed, and those who have left."""
        return self._missed + sum(mailbox.missed for mailbox in self.all())

    def all(self) -> List[Mailbox]:
        """All mailboxes."""
        return list(self._mailboxes)

    def add(self, mailbox: Mailbox) -> None:
        """Offer it events from here on."""
        self._mailboxes[mailbox] = None
        self._renew(mailbox)

    def remove(self, mailbox: Mailbox) -> None:
        """Offer it nothing more."""
        if self._mailboxes.pop(mailbox, 0) is None:
            self._missed += mailbox.missed
        self._renew(mailbox)

    def _renew(self, changed: Mailbox) -> None:
        workflow_id = changed.workflow_id
        now: Mailboxes = ()
        while True:
            known = list(self._mailboxes)
            now = tuple(one for one in known if one.workflow_id == workflow_id)
            if workflow_id is None:
                self.everything = now
            elif now:
                self.by_workflow[workflow_id] = now
            else:
                self.by_workflow.pop(workflow_id, None)
            if known == list(self._mailboxes):
                return

    def wanted(self) -> Optional[FrozenSet[str]]:
        """The workflows that are followed; None for all."""
        return None if self.everything else frozenset(self.by_workflow)

    def are_within(self, workflows: AbstractSet[str]) -> bool:
        """True if nothing is followed but these workflows."""
        return not self.everything and self.by_workflow.keys() <= workflows

    def offer_read(self, events: Iterable[Event]) -> None:
        """Offer what a tail has read from the store."""
        for event in events:
            for mailbox in self.everything:
                mailbox.offer_read(event)
            for mailbox in self.by_workflow.get(event.workflow_id, ()):
                mailbox.offer_read(event)

    def reach(self, position: int) -> None:
        """Raise the high-water mark of those who read all."""
        for mailbox in self.everything:
            mailbox.reach(position)

    def miss(self, first: int, last: int) -> None:
        """Tell those who read all that these positions are gone."""
        for mailbox in self.everything:
            mailbox.miss(first, last)

    def fall_behind(self, workflow_id: str, position: int, offset: int, ended: bool) -> None:
        """Have those who may have missed a workflow's event read it from the store."""
        for mailbox in self.everything:
            mailbox.fall_behind(position, False)
        for mailbox in self.by_workflow.get(workflow_id, ()):
            mailbox.fall_behind(offset, ended)

    def note_own(self, workflow_id: str, offset: int) -> None:
        """Tell those of one workflow that a log of this stream's has come to `offset`."""
        for mailbox in self.by_workflow.get(workflow_id, ()):
            mailbox.note_own(offset)

    def each(self, act: Callable[[Mailbox], object]) -> None:
        """Do something with each."""
        for mailbox in self.all():
            act(mailbox)
