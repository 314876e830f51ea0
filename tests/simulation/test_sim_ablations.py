"""Proof that the checkers can fail: each safeguard is switched off, and some seed must show it.

An ablation that is not noticed means that a bug of that kind would not be noticed either.
"""

from __future__ import annotations

import asyncio
import os
import tomllib
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path

import pytest
import test_sim_clusters
import test_sim_compaction
import test_sim_consumer_groups
import test_sim_groups
import test_sim_keys
import test_sim_leases
import test_sim_log
import test_sim_migration
import test_sim_retention
import test_sim_sessions
import test_sim_share
import test_sim_shared
import test_sim_streams_groups
import test_sim_transactions
import test_sim_trim
from simulation import places
from simulation.seeds import Scenario, run
from simulation.world import World

from penstock.base.errors import Unavailable
from penstock.base.twins import reference
from penstock.clusters import store as clusters_store
from penstock.clusters.removal import ClusterRemoval
from penstock.coordination import leases
from penstock.coordination.fenced_writes import FencedWrites
from penstock.coordination.runtime import CoordinatorRuntime
from penstock.groups import reconcile
from penstock.groups import store as groups_store
from penstock.groups import transitions as groups_transitions
from penstock.groups.consumer import decision_builder as consumer_decision_builder
from penstock.groups.consumer import migration
from penstock.groups.consumer import transitions as consumer_transitions
from penstock.groups.model import GroupDeleted
from penstock.groups.streams import offsets as streams_offsets
from penstock.groups.streams import reconcile as streams_reconcile
from penstock.keys import transitions as key_transitions
from penstock.log import (
    commit_sql,
    commits,
    fetch,
    fetch_sessions,
    model,
    reader,
    recovery,
    roll_forward,
    shared_commit_path,
    topic_store,
    trailing_rows,
    usage,
    writer,
)
from penstock.log.commit_path import EmbeddedCommitPath
from penstock.log.commits import Commit, CommitEntry
from penstock.log.follow import Follower
from penstock.log.record_first import RecordFirstCommitPath
from penstock.log.shared_commit_path import SharedCommitPath
from penstock.log.upkeep import garbage, key_compaction, retention, wal_compaction, wal_plan, wal_store
from penstock.log.upkeep.latest_offsets import LatestOffsets
from penstock.metadata.database import Script
from penstock.share import acquisition
from penstock.share import service as share_service
from penstock.share import store as share_store
from penstock.share import transitions as share_transitions
from penstock.share.model import ACQUIRED, AVAILABLE
from penstock.share.runs import archived
from penstock.storage.memory import MemoryObjectStore
from penstock.storage.wal import Buffer, WalLocation
from penstock.transactions import participants
from penstock.transactions import store as transaction_store
from penstock.transactions.service import TransactionService
from penstock.transactions.slots import LeasedSlots
from penstock.wire.error_codes import ErrorCode

ENOUGH_SEEDS = 250
KNOWN = Path(__file__).with_name("ablation_seeds.toml")
"""Seeds that show it, which saves most of the time this takes. Written anew with PENSTOCK_SIM_NOTE=1."""
Ablation = Callable[[pytest.MonkeyPatch], None]


def no_look_up_of_lost_answers(patch: pytest.MonkeyPatch) -> None:
    async def nothing(*args: object) -> None:
        return None

    patch.setattr(EmbeddedCommitPath, "_look_up", nothing)
    # Most ends of transactions are told by records, which nobody looks up.
    patch.setattr(participants.TransactionWrites, "record", lambda self: None)


def what_is_acknowledged_is_not_stored(patch: pytest.MonkeyPatch) -> None:
    def nothing(changes: object, settled: object) -> Script[None]:
        return
        yield

    patch.setattr(share_store, "write", nothing)


def what_is_acquired_is_given_away(patch: pytest.MonkeyPatch) -> None:
    acquire_available = acquisition._Acquisition.acquire_available

    def generous(self, runs, first, last):
        available = [run._replace(state=AVAILABLE) if run.state is ACQUIRED else run for run in runs]
        return acquire_available(self, available, first, last)

    patch.setattr(acquisition._Acquisition, "acquire_available", generous)


def sessions_end_and_nothing_is_released_but_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Records of a member that is gone count as done with."""
    patch.setattr(share_transitions, "released", lambda run, most: archived(run))


def what_is_known_of_deleted_groups_is_kept(patch: pytest.MonkeyPatch) -> None:
    """Their rows are gone, until somebody says something of what they were about."""
    patch.setattr(CoordinatorRuntime, "drop_where", lambda self, is_meant: [])


def groups_are_deleted_while_they_are_written(patch: pytest.MonkeyPatch) -> None:
    """What is on its way comes after it."""

    async def settles_nothing(self, is_meant) -> None:
        pass

    patch.setattr(CoordinatorRuntime, "await_durable_where", settles_nothing)
    patch.setattr(share_service.SharePartitions, "_is_deleting", lambda self, key: False)


def letters_are_not_noted(patch: pytest.MonkeyPatch) -> None:
    """What they are about is archived afterwards, unless somebody dies in between."""
    patch.setattr(share_store, "note_dead_letters", lambda name, state_epoch, ranges: iter(()))


def letters_are_written_when_their_records_are_done_with(patch: pytest.MonkeyPatch) -> None:
    append_dead_letters = share_service.SharePartitions.append_dead_letters

    async def late(self, name, state_epoch, letters):
        await self.archive(name, state_epoch, letters.ranges)
        return await append_dead_letters(self, name, state_epoch, letters)

    patch.setattr(share_service.SharePartitions, "append_dead_letters", late)


def what_is_given_up_is_forgotten_by_a_restart(patch: pytest.MonkeyPatch) -> None:
    """Nobody is told where it left off, and a partition that is read back counts as told of."""
    read = share_store.decode

    def forgetful(stored, **options):
        partition = read(stored, **options)
        runs = tuple(archived(run) if run.archiving else run for run in partition.runs)
        return share_transitions._with_runs(partition, runs, partition.next_offset)

    patch.setattr(share_store, "decode", forgetful)


def no_judgement_of_producers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(writer, "check_sequence", lambda *args: None)


def no_waiting_for_the_first_batch(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(writer.Writer, "_await_again", lambda *args: None)


def producers_are_not_recovered(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(commits, "remember_batch", lambda *args: None)


def high_watermark_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    decide = writer.Writer._decide

    def hasty(self, partition, pending, now_ms, admitted):
        share = decide(self, partition, pending, now_ms, admitted)
        partition.next_offset = share.next_offset
        return share

    patch.setattr(writer.Writer, "_decide", hasty)


def acknowledged_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    async def hasty(
        self: RecordFirstCommitPath, body: memoryview, entries: Sequence[CommitEntry], heads: Sequence[int],
        change: object,
    ) -> Commit:  # fmt: skip
        row = self._record(body, entries, heads)
        asyncio.get_running_loop().create_task(self._on_thread(lambda: self._append(body))).add_done_callback(
            lambda done: done.exception()
        )
        return self._done(row, WalLocation("memory/000000000000", 0, len(body)), entries, heads)

    patch.setattr(RecordFirstCommitPath, "commit", hasty)
    patch.setattr(RecordFirstCommitPath, "commit_now", lambda *args: None)


def failed_writes_are_not_made_void(patch: pytest.MonkeyPatch) -> None:
    async def nothing(self: RecordFirstCommitPath) -> None:
        self._failed = False

    patch.setattr(RecordFirstCommitPath, "_void", nothing)
    # What fails in line is not refused but written once more.
    patch.setattr(RecordFirstCommitPath, "commit_now", lambda *args: None)
    # As in a slab, what was written first is found first.
    places_of = roll_forward._places_of
    patch.setattr(roll_forward, "_places_of", lambda *args: places_of(*args)[::-1])


def records_are_not_rolled_forward(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(roll_forward, "found_rows", lambda *args, **options: [])


def what_records_tell_of_transactions_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    def nothing(changes: object) -> Script[None]:
        return
        yield

    patch.setattr(transaction_store, "redo", nothing)


def groups_do_not_begin_with_what_records_have_told(patch: pytest.MonkeyPatch) -> None:
    """The database is asked whether a transaction goes on before it knows of its beginning, and nobody hears that it
    says no."""
    write = groups_store.GroupJournal.write

    async def unheard(self, records):
        await write(self, records)
        return ()

    patch.setattr(
        trailing_rows.UpToDateDatabase, "transaction", lambda self, script: self._database.transaction(script)
    )
    patch.setattr(groups_store.GroupJournal, "write", unheard)


def readers_of_offsets_do_not_wait_for_rows(patch: pytest.MonkeyPatch) -> None:
    async def nothing(self: RecordFirstCommitPath) -> None:
        return None

    patch.setattr(RecordFirstCommitPath, "store_changes", nothing)


def records_tell_no_offsets(patch: pytest.MonkeyPatch) -> None:
    """What becomes of offsets is left out when the rows follow."""
    patch.setattr(transaction_store, "move_offsets", lambda pending, ended: iter(()))


def objects_are_not_durable_when_named(patch: pytest.MonkeyPatch) -> None:
    class LazyWal(places.FaultyWal):
        """Says that an object is stored, and stores it a moment later."""

        def append(self, body: Sequence[Buffer]) -> WalLocation:
            location = super().append(body)
            objects = self._inner._objects
            stored = objects.pop(location.key)
            asyncio.get_running_loop().call_later(0.005, objects.__setitem__, location.key, stored)
            return location

    patch.setattr(places, "FaultyWal", LazyWal)


def batches_are_cut(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reader, "whole_batches", lambda view, max_bytes, *, at_least_one: view[:max_bytes])


# ---- the background --------------------------------------------------------------------------------------------


def space_is_released_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    commit = wal_compaction.WalCompaction._commit

    async def hasty(self, done):
        self._wal.release(done.plan.locations)
        await commit(self, done)

    patch.setattr(wal_compaction.WalCompaction, "_commit", hasty)


def what_compaction_did_is_not_looked_up(patch: pytest.MonkeyPatch) -> None:
    """A lost answer is taken for a failure: the object of the pass is deleted although it may be named."""

    async def hasty(self, done):
        self._unsettled = None
        await self._delete_objects(done.uploads)

    patch.setattr(wal_compaction.WalCompaction, "_settle", hasty)


def usage_is_counted_twice(patch: pytest.MonkeyPatch) -> None:
    def twice(shard_id, used):
        yield from usage.add_usage(shard_id, used)
        yield from usage.add_usage(shard_id, used)

    patch.setattr(wal_store, "add_usage", twice)


def producers_are_not_stored(patch: pytest.MonkeyPatch) -> None:
    fold = wal_plan.PartitionRange.fold
    patch.setattr(wal_plan.PartitionRange, "fold", lambda self: replace(fold(self), producers=()))


def no_sweep_of_orphans(patch: pytest.MonkeyPatch) -> None:
    async def nothing(self):
        return None

    patch.setattr(garbage.Orphans, "run", nothing)


def no_grace_for_readers(patch: pytest.MonkeyPatch) -> None:
    run_chore = garbage.DeadObjects.run

    async def hasty(self):
        self._grace_ms = 0
        return await run_chore(self)

    patch.setattr(garbage.DeadObjects, "run", hasty)


def trims_are_not_durable(patch: pytest.MonkeyPatch) -> None:
    def nothing(cluster_id, marks):
        yield "SELECT 1", ()

    patch.setattr(topic_store, "trim", nothing)


def retention_is_hasty(patch: pytest.MonkeyPatch) -> None:
    too_old = retention._expired_by_age
    patch.setattr(
        retention,
        "_expired_by_age",
        lambda partition, stretches, config, now_ms, complete: too_old(
            partition, stretches, config, now_ms + config.retention_ms, complete
        ),
    )


def the_latest_value_supersedes_itself(patch: pytest.MonkeyPatch) -> None:
    class Superseding(reference(LatestOffsets)):  # type: ignore[misc]
        def get(self, key: bytes, default: int) -> int:
            return super().get(key, default - 1) + 1

    patch.setattr(key_compaction, "LatestOffsets", Superseding)


def keys_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    class Forgetful(reference(LatestOffsets)):  # type: ignore[misc]
        def get(self, key: bytes, default: int) -> int:
            return default

    patch.setattr(key_compaction, "LatestOffsets", Forgetful)


def tombstones_go_at_once(patch: pytest.MonkeyPatch) -> None:
    kept = key_compaction.kept_records
    patch.setattr(key_compaction, "kept_records", lambda *given: kept(*given[:-1], True))


# ---- groups and several agents ---------------------------------------------------------------------------------


def offsets_are_acknowledged_before_they_are_durable(patch: pytest.MonkeyPatch) -> None:
    write = groups_store.GroupJournal.write

    async def hasty(self, records):
        task = asyncio.get_running_loop().create_task(write(self, list(records)))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return ()

    patch.setattr(groups_store.GroupJournal, "write", hasty)


def producers_are_not_guarded(patch: pytest.MonkeyPatch) -> None:
    """Each agent trusts its own memory of producers, and writes over what others know."""

    def unguarded(move, head, now_ms):
        yield (
            "INSERT INTO producer_state (partition_id, producer_id, epoch, last_ms, batches)"
            " VALUES ($1, $2, $3, $4, $5)"
            " ON CONFLICT (partition_id, producer_id) DO UPDATE SET epoch = excluded.epoch, batches = excluded.batches",
            (move.partition_id, move.producer_id, move.epoch, now_ms, move.kept),
        )

    patch.setattr(commit_sql, "_update_producer", unguarded)


def no_settling_among_agents(patch: pytest.MonkeyPatch) -> None:
    async def hasty(self, new):
        raise Unavailable("nobody looked")

    patch.setattr(SharedCommitPath, "_settle", hasty)


def own_commits_are_not_kept_in_order(patch: pytest.MonkeyPatch) -> None:
    """An agent applies its own commit without those of others before it."""

    async def hasty(self, seq):
        return None

    patch.setattr(Follower, "reach", hasty)


# ---- transactions ----------------------------------------------------------------------------------------------


def everything_is_stable(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(model.Partition, "last_stable_offset", property(lambda self: self.next_offset))


def aborts_have_no_markers(patch: pytest.MonkeyPatch) -> None:
    write_markers = TransactionService.write_markers

    def only_commits(self, flush, cell, ending):
        if ending.commit:
            write_markers(self, flush, cell, ending)

    patch.setattr(TransactionService, "write_markers", only_commits)


def offsets_do_not_wait_for_the_end(patch: pytest.MonkeyPatch) -> None:
    def at_once(key, producer_id, offsets, overtaken=()):
        yield groups_store._upsert_offsets(key, sorted(offsets.items(), key=groups_store._partition))

    for module in (groups_store, transaction_store):
        patch.setattr(module, "add_pending", at_once)


def offsets_are_committed_after_the_records(patch: pytest.MonkeyPatch) -> None:
    """Not in the transaction that writes the markers, but in another one after it."""

    end_offsets = transaction_store.end_offsets

    def nothing(ended):
        yield from ()

    adopt = TransactionService.adopt

    def and_offsets(self, key, decision):
        before = self.cell(key)
        producer_id = None if before is None else before.txn.producer_id
        adopt(self, key, decision)
        if decision.ending is not None and producer_id is not None:
            ending = self._database.transaction(lambda: end_offsets([(key[0], producer_id, decision.ending.commit)]))
            task = asyncio.get_running_loop().create_task(ending)
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

    patch.setattr(transaction_store, "end_offsets", nothing)
    patch.setattr(TransactionService, "adopt", and_offsets)


def batches_of_ended_transactions_are_appended(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TransactionService, "refusal", lambda *args: ErrorCode.NONE)


def readers_are_not_told_what_was_aborted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fetch, "aborted_between", lambda *args: [])


def aborts_are_not_stored(patch: pytest.MonkeyPatch) -> None:
    fold = wal_plan.PartitionRange.fold
    patch.setattr(wal_plan.PartitionRange, "fold", lambda self: replace(fold(self), aborted=()))


def open_transactions_are_not_recovered(patch: pytest.MonkeyPatch) -> None:
    """After a start, those that began below the floor of the log are taken for ended."""
    patch.setattr(
        recovery, "OpenTransaction", lambda first_offset, started_ms: model.OpenTransaction(2**62, started_ms)
    )


def keys_of_aborted_batches_count(patch: pytest.MonkeyPatch) -> None:
    note = key_compaction.OffsetMap.note

    def note_all(self, header, batch):
        known, self.transactions = self.transactions, key_compaction.Transactions()
        note(self, header, batch)
        self.transactions = known

    patch.setattr(key_compaction.OffsetMap, "note", note_all)


def markers_go_before_their_batches(patch: pytest.MonkeyPatch) -> None:
    """The ends of aborted transactions are removed, and the list of them is shortened, while batches are left."""

    def at_once(cleaning, header, batch):
        _, is_listed = cleaning.transactions.end(header)
        if is_listed:
            cleaning.transactions.expired_aborts.add(header.base_offset)
        return batch if cleaning.wants_header(header) else None

    patch.setattr(key_compaction, "_clean_marker", at_once)
    patch.setattr(key_compaction.Transactions, "is_aborted", lambda self, header: False)


def groups_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A coordinator that starts knows no members, and counts generations from the beginning."""

    def none(slots):
        yield from ()
        return []

    def no_group(key):
        yield from ()

    patch.setattr(groups_store, "groups_with_members", none)
    patch.setattr(groups_store, "load_group", no_group)


def former_generations_commit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(groups_transitions, "_commit_error", lambda group, request: ErrorCode.NONE)


def adopted_objects_are_not_kept(patch: pytest.MonkeyPatch) -> None:
    """What the log shares is named as an object, and goes when the log lets go of it."""
    patch.setattr(MemoryObjectStore, "adopt", lambda self, key, shared: len(shared))


# ---- transactions over several agents --------------------------------------------------------------------------


def coordinators_are_not_fenced(patch: pytest.MonkeyPatch) -> None:
    """Whoever has lost its leases goes on as before."""

    def no_fence(self, keys):
        yield from ()

    patch.setattr(LeasedSlots, "fence", no_fence)


def ends_do_not_look_at_what_was_not_seen(patch: pytest.MonkeyPatch) -> None:
    """Markers go where the coordinator knows batches, and it does not hear of all of them in time."""

    def blind(self, change, seq):
        if change is not None:
            yield from change.script()

    async def nothing(self):
        return None

    patch.setattr(SharedCommitPath, "_along", blind)
    patch.setattr(SharedCommitPath, "catch_up", nothing)


def commits_do_not_look_at_transactions(patch: pytest.MonkeyPatch) -> None:
    """Other agents' batches are appended whatever has become of their transaction."""
    patch.setattr(shared_commit_path, "_memberships", lambda entries: [])


def partitions_are_given_before_they_are_given_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(consumer_decision_builder, "is_free_for", lambda owners, member_id: lambda topic_id, partition: True)


def giving_back_is_taken_for_granted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reconcile, "overlaps", lambda owned, assigned: False)


def members_are_not_stored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(groups_store, "_write_members", lambda key, members: iter(()))


def zombies_of_consumer_groups_commit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(consumer_transitions, "_commit_error", lambda group, request: ErrorCode.NONE)


def tasks_are_given_before_they_are_given_back(patch: pytest.MonkeyPatch) -> None:
    nobody = streams_reconcile.TasksOfOthers(frozenset(), frozenset(), frozenset(), frozenset())
    patch.setattr(streams_reconcile, "tasks_of_others", lambda member, members: nobody)


def giving_back_tasks_is_taken_for_granted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(streams_reconcile, "_has_released", lambda owned, pending_revocation: True)


def zombies_of_streams_groups_commit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(streams_offsets, "_commit_error", lambda group, request, topics: ErrorCode.NONE)


def groups_that_go_down_begin_anew(patch: pytest.MonkeyPatch) -> None:
    """A generation has a number that was an epoch before."""
    downgraded = migration.downgrade

    def forgetful(step, members, *, rebalances):
        step.group = replace(step.group, epoch=0)
        return downgraded(step, members, rebalances=rebalances)

    patch.setattr(migration, "downgrade", forgetful)


def what_classic_members_have_is_free_once_their_group_goes_up(patch: pytest.MonkeyPatch) -> None:
    upgraded = migration._upgraded_member
    patch.setattr(migration, "_upgraded_member", lambda *args: replace(upgraded(*args), assigned={}))


def offsets_stay_behind_when_a_group_goes_up(patch: pytest.MonkeyPatch) -> None:
    upgraded = migration.upgrade

    def forgetful(group, terms):
        step = upgraded(group, terms)
        step.records.insert(0, GroupDeleted())
        return step

    patch.setattr(migration, "upgrade", forgetful)


def outsiders_move_offsets(patch: pytest.MonkeyPatch) -> None:
    """Whoever names no member may commit, members or not."""
    commit_error = groups_transitions._commit_error
    patch.setattr(
        groups_transitions,
        "_commit_error",
        lambda group, request: ErrorCode.NONE if request.generation < 0 else commit_error(group, request),
    )


def sessions_end_with_their_coordinator(patch: pytest.MonkeyPatch) -> None:
    """A coordinator that starts has heard of nobody, and does not wait."""
    restored = groups_transitions.restored

    def hasty(group, now_ms, settings):
        decision = restored(group, now_ms, settings)
        return replace(decision, timers=tuple(replace(timer, delay_ms=0) for timer in decision.timers))

    patch.setattr(groups_transitions, "restored", hasty)


# ---- clocks ----------------------------------------------------------------------------------------------------


def timers_go_by_the_wall_clock(patch: pytest.MonkeyPatch) -> None:
    def time(self):
        return self._clock.now_ms() / 1000

    def call_at(self, when, callback):
        return self._clock.loop.call_later(max(when - self.time(), 0), callback)

    patch.setattr(places.SimScheduler, "time", time)
    patch.setattr(places.SimScheduler, "call_at", call_at)


def locks_go_by_the_wall_clock(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(share_service, "SteadyClock", lambda clock: clock)


# ---- leases lost in the middle of a decision ------------------------------------------------------------------------


def leases_guard_nothing(patch: pytest.MonkeyPatch) -> None:
    """Whoever once had a slot writes on."""

    def unfenced(slots, epochs, *, write_number, expires_ms, slot_space=leases.GROUP_SLOTS):
        for slot in sorted(set(slots)):
            yield (
                "UPDATE lease SET write_number = $1 WHERE cluster_id = $2 AND slot = $3",
                (write_number, slot_space, slot),
            )

    patch.setattr(leases, "fence", unfenced)


def agents_that_were_replaced_give_records_out(patch: pytest.MonkeyPatch) -> None:
    """Acquisitions write nothing, so no lease guards them."""

    async def unproven(self):
        return

    patch.setattr(FencedWrites, "prove", unproven)


# ---- fetch sessions --------------------------------------------------------------------------------------------


def sessions_do_not_look_where_logs_begin(patch: pytest.MonkeyPatch) -> None:
    def is_quiet(self):
        partition = self.partition
        return partition is not None and self.fetch_offset == partition.next_offset == self.sent_high_watermark

    patch.setattr(fetch_sessions.CachedPartition, "is_quiet", property(is_quiet))


def sessions_forget_nothing(patch: pytest.MonkeyPatch) -> None:
    go_on = fetch_sessions.FetchSessions._continue

    def deaf(self, request, by_id, owner):
        request = copy(request)
        request.forgotten_topics_data = []
        return go_on(self, request, by_id, owner)

    patch.setattr(fetch_sessions.FetchSessions, "_continue", deaf)


def what_a_session_was_told_is_told_of_other_positions(patch: pytest.MonkeyPatch) -> None:
    """A partition of which the client has heard once is of no interest until it grows, wherever the client is."""

    def is_quiet(self):
        partition = self.partition
        return partition is not None and partition.next_offset == self.sent_high_watermark

    patch.setattr(fetch_sessions.CachedPartition, "is_quiet", property(is_quiet))


def clusters_are_forgotten_before_what_they_hold(patch: pytest.MonkeyPatch) -> None:
    """The agent that began goes on; nobody else knows that there is anything to remove."""
    step = ClusterRemoval._step

    async def hasty(self, cluster):
        await self._database.transaction(lambda: clusters_store.forget(cluster.cluster_id))
        await step(self, cluster)

    patch.setattr(ClusterRemoval, "_step", hasty)


def keys_count_as_erased_when_that_is_asked_for(patch: pytest.MonkeyPatch) -> None:
    """Whatever the key service says."""
    patch.setattr(key_transitions, "erasing", lambda keys: key_transitions.erased(keys))


LOG = test_sim_log.test_acknowledged_records_survive.scenario
COMPACTION = test_sim_compaction.test_compaction_loses_nothing.scenario
TRIM = test_sim_trim.test_trimmed_records_stay_gone.scenario
RETENTION = test_sim_retention.test_retention_takes_what_is_due.scenario
KEYS = test_sim_keys.test_the_latest_value_of_each_key_stays.scenario
SHARE = test_sim_share.test_share_group.scenario
SHARE_MEMBERS = test_sim_share.test_members_of_a_share_group.scenario
LETTERS = test_sim_share.test_dead_letters.scenario
DELETED = test_sim_share.test_deleted_groups_leave_nothing.scenario
CONSUMERS = test_sim_consumer_groups.test_nobody_shares_a_partition.scenario
MIGRATION = test_sim_migration.test_a_group_goes_up_and_down.scenario
STREAMS = test_sim_streams_groups.test_nobody_shares_a_task.scenario
GROUPS = test_sim_groups.test_committed_offsets_survive.scenario
TRANSACTIONS = test_sim_transactions.test_transactions_are_all_or_nothing.scenario
COMPACTED = test_sim_transactions.test_transactions_in_a_compacted_topic.scenario
SHARED = test_sim_shared.test_two_agents_make_one_log.scenario
MEMBERS = test_sim_groups.test_members_of_a_generation_own_different_partitions.scenario
RESTARTS = test_sim_groups.test_members_keep_their_generation_over_restarts.scenario
LEASED_CLASSIC = test_sim_leases.test_leases_of_classic_groups.scenario
LEASED_CONSUMERS = test_sim_leases.test_leases_of_consumer_groups.scenario
LEASED_STREAMS = test_sim_leases.test_leases_of_streams_groups.scenario
ACCEPTED_ELSEWHERE = test_sim_leases.test_records_accepted_at_another_agent_are_not_given_out.scenario
LEASED_SHARE = test_sim_leases.test_leases_of_share_partitions.scenario
SESSIONS = test_sim_sessions.test_sessions_say_what_full_fetches_say.scenario
ADOPTED = test_sim_compaction.test_adopted_objects_lose_nothing.scenario
CLUSTERS = test_sim_clusters.test_deleted_clusters_go_to_the_end.scenario
OVER_TWO = test_sim_transactions.test_transactions_over_two_agents.scenario
ABLATIONS: list[tuple[Ablation, Scenario]] = [
    (no_look_up_of_lost_answers, TRANSACTIONS),
    (partitions_are_given_before_they_are_given_back, CONSUMERS),
    (giving_back_is_taken_for_granted, CONSUMERS),
    (members_are_not_stored, CONSUMERS),
    (zombies_of_consumer_groups_commit, CONSUMERS),
    (groups_that_go_down_begin_anew, MIGRATION),
    (what_classic_members_have_is_free_once_their_group_goes_up, MIGRATION),
    (offsets_stay_behind_when_a_group_goes_up, MIGRATION),
    (tasks_are_given_before_they_are_given_back, STREAMS),
    (giving_back_tasks_is_taken_for_granted, STREAMS),
    (members_are_not_stored, STREAMS),
    (zombies_of_streams_groups_commit, STREAMS),
    (outsiders_move_offsets, RESTARTS),
    (sessions_end_with_their_coordinator, RESTARTS),
    (groups_are_forgotten, RESTARTS),
    (timers_go_by_the_wall_clock, RESTARTS),
    (locks_go_by_the_wall_clock, SHARE),
    (leases_guard_nothing, LEASED_CLASSIC),
    (leases_guard_nothing, LEASED_CONSUMERS),
    (leases_guard_nothing, LEASED_STREAMS),
    (leases_guard_nothing, LEASED_SHARE),
    (agents_that_were_replaced_give_records_out, ACCEPTED_ELSEWHERE),
    (sessions_do_not_look_where_logs_begin, SESSIONS),
    (sessions_forget_nothing, SESSIONS),
    (what_a_session_was_told_is_told_of_other_positions, SESSIONS),
    (no_judgement_of_producers, LOG),
    (no_waiting_for_the_first_batch, LOG),
    (producers_are_not_recovered, LOG),
    (high_watermark_before_the_commit, LOG),
    (acknowledged_before_the_commit, LOG),
    (failed_writes_are_not_made_void, LOG),
    (records_are_not_rolled_forward, LOG),
    (what_records_tell_of_transactions_is_forgotten, TRANSACTIONS),
    (groups_do_not_begin_with_what_records_have_told, TRANSACTIONS),
    (readers_of_offsets_do_not_wait_for_rows, TRANSACTIONS),
    (records_tell_no_offsets, TRANSACTIONS),
    (objects_are_not_durable_when_named, LOG),
    (batches_are_cut, LOG),
    (space_is_released_before_the_commit, COMPACTION),
    (what_compaction_did_is_not_looked_up, COMPACTION),
    (usage_is_counted_twice, COMPACTION),
    (producers_are_not_stored, COMPACTION),
    (no_sweep_of_orphans, COMPACTION),
    (no_grace_for_readers, KEYS),
    (trims_are_not_durable, TRIM),
    (retention_is_hasty, RETENTION),
    (the_latest_value_supersedes_itself, KEYS),
    (keys_are_forgotten, KEYS),
    (tombstones_go_at_once, KEYS),
    (offsets_are_acknowledged_before_they_are_durable, GROUPS),
    (everything_is_stable, TRANSACTIONS),
    (aborts_have_no_markers, TRANSACTIONS),
    (offsets_do_not_wait_for_the_end, TRANSACTIONS),
    (offsets_are_committed_after_the_records, TRANSACTIONS),
    (batches_of_ended_transactions_are_appended, TRANSACTIONS),
    (readers_are_not_told_what_was_aborted, TRANSACTIONS),
    (aborts_are_not_stored, TRANSACTIONS),
    (open_transactions_are_not_recovered, TRANSACTIONS),
    (keys_of_aborted_batches_count, COMPACTED),
    (markers_go_before_their_batches, COMPACTED),
    (producers_are_not_guarded, SHARED),
    (no_settling_among_agents, SHARED),
    (own_commits_are_not_kept_in_order, SHARED),
    (groups_are_forgotten, MEMBERS),
    (former_generations_commit, MEMBERS),
    (adopted_objects_are_not_kept, ADOPTED),
    (coordinators_are_not_fenced, OVER_TWO),
    (members_are_not_stored, SHARE_MEMBERS),
    (what_is_acknowledged_is_not_stored, SHARE),
    (what_is_acquired_is_given_away, SHARE),
    (letters_are_not_noted, LETTERS),
    (letters_are_written_when_their_records_are_done_with, LETTERS),
    (what_is_given_up_is_forgotten_by_a_restart, LETTERS),
    (what_is_known_of_deleted_groups_is_kept, DELETED),
    (groups_are_deleted_while_they_are_written, DELETED),
    (sessions_end_and_nothing_is_released_but_forgotten, SHARE),
    (ends_do_not_look_at_what_was_not_seen, OVER_TWO),
    (commits_do_not_look_at_transactions, OVER_TWO),
    (clusters_are_forgotten_before_what_they_hold, CLUSTERS),
    (keys_count_as_erased_when_that_is_asked_for, CLUSTERS),
]


@pytest.mark.parametrize(
    ("ablation", "scenario"), ABLATIONS, ids=[f"{one.__name__}-{scenario.__name__}" for one, scenario in ABLATIONS]
)  # fmt: skip
def test_is_noticed(ablation: Ablation, scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    ablation(monkeypatch)
    failure = first_failure(f"{ablation.__name__}-{scenario.__name__}", scenario)
    assert failure is not None, f"{ENOUGH_SEEDS} seeds did not show it"
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    outdated = isinstance(failure, TypeError | AttributeError) or "the writer met a bug" in str(failure)
    assert not outdated, f"the ablation does not fit the program any more: {failure!r}"


def first_failure(name: str, scenario: Callable[[World], object]) -> BaseException | None:
    """What the first seed that fails fails with. The one that failed when somebody last looked is tried first."""
    known = tomllib.loads(KNOWN.read_text())
    for seed in dict.fromkeys((*(known[one] for one in (name,) if one in known), *range(ENOUGH_SEEDS))):
        try:
            run(scenario, seed)
        except Exception as failure:
            print(f"seed {seed}: {failure!r}")
            if os.environ.get("PENSTOCK_SIM_NOTE") and known.get(name) != seed:
                KNOWN.write_text("".join(f"{one} = {at}\n" for one, at in sorted((known | {name: seed}).items())))
            return failure
    return None
