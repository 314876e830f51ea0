# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, binding=False, cdivision=True
# cython: auto_pickle=False
"""Compiled twins of the functions that are marked with `twinned` (penstock/base/twins.py).

Each does what the function of its name does, to the byte and to the order of what it calls; that one says what this is.
Tests compare them: `tests/unit/log/test_log_twins.py`, `tests/unit/wire/test_wire_hot.py`. Where a twin meets anything
uncommon it gives up just as its reference does.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromObject
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE, PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset


cdef extern from "Python.h":
    object PyType_GenericAlloc(type kind, Py_ssize_t items)
    object PySequence_GetItem(object sequence, Py_ssize_t position)
    object PySequence_GetSlice(object sequence, Py_ssize_t start, Py_ssize_t end)


cdef extern from *:
    """
    static inline uint64_t penstock_load(const unsigned char *at, int size) {
        uint64_t value = 0;
        for (int i = 0; i < size; i++) value = value << 8 | at[i];
        return value;
    }
    static inline void penstock_store(unsigned char *at, uint64_t value, int size) {
        for (int i = size - 1; i >= 0; i--) { at[i] = (unsigned char)value; value >>= 8; }
    }
    """
    bint overflows "__builtin_add_overflow"(int64_t one, int64_t other, int64_t *total) noexcept nogil
    uint64_t load "penstock_load"(const uint8_t *at, int size) noexcept nogil
    void store "penstock_store"(uint8_t *at, uint64_t value, int size) noexcept nogil


cdef type RecordSpan, PlainProduce, TakenProduce, Accepted, Appended, ProducerBatch, CommitEntry, ProducerState, SequenceBatch, Ticket
cdef type OpenTransaction, AbortedTransaction, PassProducer
cdef object NO_ERROR, crc32c, scan_reference, note_reference, kept_reference, KeptRecords
cdef bytes ZERO_UUID
cdef Py_ssize_t MAX_ELEMENTS = 0, SHARE_MAX_BATCHES = 0
cdef int64_t SHARE_MAX_OFFSETS = 0
cdef int32_t LEADER_EPOCH = 0
cdef int64_t FURTHEST_MS = 0
cdef bint bound = False


cdef int bind() except -1:
    """Get to know the classes: at the first call, for their modules are importing this one before."""
    global PlainProduce, TakenProduce, Accepted, Appended, ProducerBatch, CommitEntry, ProducerState, SequenceBatch, Ticket
    global OpenTransaction, AbortedTransaction, PassProducer
    global LEADER_EPOCH, SHARE_MAX_BATCHES, SHARE_MAX_OFFSETS
    global RecordSpan, NO_ERROR, crc32c, scan_reference, ZERO_UUID, MAX_ELEMENTS, bound
    global note_reference, kept_reference, KeptRecords, FURTHEST_MS
    import crc32c as library
    from penstock.base import twins
    from penstock.log import answers, batches, commits, fair_queue, model
    from penstock.log.upkeep import latest_offsets, wal_plan
    from penstock.wire import error_codes, hot, primitives, records

    crc32c, scan_reference = library.crc32c, twins.reference(records.scan_records)
    note_reference = twins.reference(latest_offsets.note_keys)
    kept_reference = twins.reference(latest_offsets.kept_records)
    RecordSpan, KeptRecords = records.RecordSpan, latest_offsets.KeptRecords
    PlainProduce, TakenProduce = hot.PlainProduce, hot.TakenProduce
    ZERO_UUID, NO_ERROR = primitives.ZERO_UUID, error_codes.ErrorCode.NONE
    MAX_ELEMENTS = primitives.MAX_ELEMENTS
    Accepted, Appended, Ticket = batches.Accepted, answers.Appended, answers.Ticket
    ProducerBatch, CommitEntry = commits.ProducerBatch, commits.CommitEntry
    ProducerState, SequenceBatch = model.ProducerState, model.SequenceBatch
    OpenTransaction, AbortedTransaction = model.OpenTransaction, model.AbortedTransaction
    FURTHEST_MS = latest_offsets.FURTHEST_MS
    PassProducer, LEADER_EPOCH = wal_plan.PassProducer, model.LEADER_EPOCH
    SHARE_MAX_BATCHES, SHARE_MAX_OFFSETS = fair_queue.SHARE_MAX_BATCHES, fair_queue.SHARE_MAX_OFFSETS
    bound = True
    return 0


cdef inline void put(object made, Py_ssize_t position, object value):
    Py_INCREF(value)
    PyTuple_SET_ITEM(made, position, value)


cdef inline object item(object row, Py_ssize_t position):
    return <object>PyTuple_GET_ITEM(row, position)


# ---- wire/hot.py -------------------------------------------------------------------------------------------------

cdef Py_ssize_t uvarint(const uint8_t *data, Py_ssize_t size, Py_ssize_t *position) noexcept:
    """An unsigned varint of up to four bytes; -1 where there is none."""
    cdef Py_ssize_t value = 0
    cdef int shift = 0
    cdef uint8_t byte
    while shift < 28 and position[0] < size:
        byte = data[position[0]]
        position[0] += 1
        value |= <Py_ssize_t>(byte & 0x7F) << shift
        if byte < 128:
            return value
        shift += 7
    return -1


def take(object shape, bytes frame):
    cdef bytes kind = item(shape, 0), front = item(shape, 1)
    cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(frame)
    cdef Py_ssize_t size = len(frame), kept = len(kind), position = item(shape, 2), length
    cdef object made, index
    if not bound:
        bind()
    if size < kept or memcmp(data, PyBytes_AS_STRING(kind), kept):
        return None
    kept = len(front)
    if size - 8 < kept or memcmp(data + 8, PyBytes_AS_STRING(front), kept):
        return None
    if size - position < 5:
        return None
    index = <int32_t>load(data + position, 4)
    position += 4
    length = uvarint(data, size, &position) - 1
    if length < 0 or position + length + 3 != size or load(data + size - 3, 3):
        return None
    made = PyType_GenericAlloc(TakenProduce, 4)
    put(made, 0, <int32_t>load(data + 4, 4))
    put(made, 1, index)
    put(made, 2, position)
    put(made, 3, position + length)
    return made


def answer(
    object shape, int32_t correlation_id, int32_t index, int64_t base_offset, int64_t append_time_ms, int64_t log_start,
    uint32_t throttle_ms=0,
):
    cdef bytes front = item(shape, 9), made
    cdef Py_ssize_t size = len(front)
    cdef uint8_t *at
    made = PyBytes_FromStringAndSize(NULL, 8 + size + 39)
    at = <uint8_t *>PyBytes_AS_STRING(made)
    store(at, <uint32_t>item(shape, 10), 4)
    store(at + 4, <uint32_t>correlation_id, 4)
    memcpy(at + 8, PyBytes_AS_STRING(front), size)
    at += 8 + size
    store(at, <uint32_t>index, 4)
    store(at + 4, 0, 2)
    store(at + 6, <uint64_t>base_offset, 8)
    store(at + 14, <uint64_t>append_time_ms, 8)
    store(at + 22, <uint64_t>log_start, 8)
    store(at + 30, 0x01000000, 4)
    store(at + 34, throttle_ms, 4)
    at[38] = 0
    return made


def read_produce(object frame):
    cdef Py_buffer buffer
    if not bound:
        bind()
    PyObject_GetBuffer(frame, &buffer, PyBUF_SIMPLE)
    try:
        return parse_produce(<const uint8_t *>buffer.buf, buffer.len)
    except UnicodeDecodeError:
        return None
    finally:
        PyBuffer_Release(&buffer)


cdef object parse_produce(const uint8_t *data, Py_ssize_t size):
    cdef Py_ssize_t position = 10, length, topics, count, end, first
    cdef int version
    cdef int16_t acks
    cdef int32_t timeout_ms
    cdef object client_id = None, transactional_id = None, name, topic_id, made, index
    cdef list shares
    cdef set topics_named = None, indexes
    if size < 10 or load(data, 2) != 0:
        return None
    version = <int16_t>load(data + 2, 2)
    if not 9 <= version <= 13:
        return None
    length = <int16_t>load(data + 8, 2)
    if length >= 0:
        if length > size - position:
            return None
        client_id = PyUnicode_DecodeUTF8(<const char *>data + position, length, NULL)
        position += length
    if size - position < 9 or data[position]:
        return None
    position += 1
    length = uvarint(data, size, &position) - 1
    if length < -1 or length > size - position:
        return None
    if length >= 0:
        transactional_id = PyUnicode_DecodeUTF8(<const char *>data + position, length, NULL)
        position += length
    if size - position < 7:
        return None
    acks = <int16_t>load(data + position, 2)
    if acks != 1 and acks != -1:
        return None
    timeout_ms = <int32_t>load(data + position + 2, 4)
    position += 6
    topics = uvarint(data, size, &position)
    shares = []
    while topics > 1:
        topics -= 1
        if version >= 13:
            if size - position < 16:
                return None
            name, topic_id = "", PyBytes_FromStringAndSize(<const char *>data + position, 16)
            position += 16
        else:
            length = uvarint(data, size, &position) - 1
            if length < 0 or length > size - position:
                return None
            name, topic_id = PyUnicode_DecodeUTF8(<const char *>data + position, length, NULL), ZERO_UUID
            position += length
        if topics > 1 or topics_named is not None:
            if topics_named is None:
                topics_named = set()
            if (name, topic_id) in topics_named:
                return None
            topics_named.add((name, topic_id))
        count = uvarint(data, size, &position)
        if count < 2 or len(shares) + count > MAX_ELEMENTS + 1:
            return None
        indexes = set() if count > 2 else None
        while count > 1:
            count -= 1
            if size - position < 5:
                return None
            index = <int32_t>load(data + position, 4)
            position += 4
            if indexes is not None:
                if index in indexes:
                    return None
                indexes.add(index)
            length = uvarint(data, size, &position) - 1
            if length < 0 or length >= size - position:
                return None
            end = position + length
            if data[end]:
                return None
            shares.append((name, topic_id, index, position, end))
            position = end + 1
        if position >= size or data[position]:
            return None
        position += 1
    if not shares or position + 1 != size or data[position]:
        return None
    made = PyType_GenericAlloc(PlainProduce, 6)
    put(made, 0, version)
    put(made, 1, <int32_t>load(data + 4, 4))
    put(made, 2, client_id)
    put(made, 3, shares)
    put(made, 4, transactional_id)
    put(made, 5, timeout_ms)
    return made


cdef inline Py_ssize_t uvarint_bytes(Py_ssize_t value) noexcept:
    cdef Py_ssize_t count = 1
    while value > 127:
        value >>= 7
        count += 1
    return count


cdef inline uint8_t *put_uvarint(uint8_t *at, Py_ssize_t value) noexcept:
    while value > 127:
        at[0] = value & 127 | 128
        at += 1
        value >>= 7
    at[0] = <uint8_t>value
    return at + 1


def answer_produce(object request, object results, object throttle_ms):
    cdef list shares = item(request, 3), outcomes = results
    cdef bint by_id = item(request, 0) >= 13
    cdef Py_ssize_t count = len(shares), number, first = 0, topics = 0, size = 0, end
    cdef object share, outcome, name, topic_id
    cdef bytes encoded, made
    cdef uint8_t *at
    if len(outcomes) != count:
        raise ValueError("as many results as there are partitions")
    while first < count:  # How large it becomes.
        share = shares[first]
        name, topic_id = item(share, 0), item(share, 1)
        end = first
        while end < count and item(shares[end], 0) == name and item(shares[end], 1) == topic_id:
            if item(outcomes[end], 0):
                return None
            end += 1
        encoded = topic_id if by_id else (<str>name).encode()
        size += len(encoded)
        if not by_id:
            size += uvarint_bytes(len(encoded) + 1)
        size += uvarint_bytes(end - first + 1) + 33 * (end - first) + 1
        topics += 1
        first = end
    size += 4 + 4 + 1 + uvarint_bytes(topics + 1) + 5
    made = PyBytes_FromStringAndSize(NULL, size)
    at = <uint8_t *>PyBytes_AS_STRING(made)
    store(at, size - 4, 4)
    store(at + 4, <uint32_t><int32_t>item(request, 1), 4)
    at[8] = 0
    at = put_uvarint(at + 9, topics + 1)
    first = 0
    while first < count:
        share = shares[first]
        name, topic_id = item(share, 0), item(share, 1)
        end = first + 1
        while end < count and item(shares[end], 0) == name and item(shares[end], 1) == topic_id:
            end += 1
        encoded = topic_id if by_id else (<str>name).encode()
        if not by_id:
            at = put_uvarint(at, len(encoded) + 1)
        memcpy(at, PyBytes_AS_STRING(encoded), len(encoded))
        at = put_uvarint(at + len(encoded), end - first + 1)
        for number in range(first, end):
            outcome = outcomes[number]
            store(at, <uint32_t><int32_t>item(shares[number], 2), 4)
            store(at + 4, 0, 2)
            store(at + 6, <uint64_t><int64_t>item(outcome, 1), 8)
            store(at + 14, <uint64_t><int64_t>item(outcome, 2), 8)
            store(at + 22, <uint64_t><int64_t>item(outcome, 3), 8)
            at[30], at[31], at[32] = 1, 0, 0
            at += 33
        at[0] = 0
        at += 1
        first = end
    store(at, <uint32_t><int32_t>throttle_ms, 4)
    at[4] = 0
    return made


# ---- wire/records.py ---------------------------------------------------------------------------------------------

cdef inline bint varlong(const uint8_t *data, Py_ssize_t end, Py_ssize_t *position, int64_t *value) noexcept nogil:
    """A signed varint of up to nine bytes before `end`; False where there is none."""
    cdef uint64_t bits = 0
    cdef int shift = 0
    cdef uint8_t byte
    while shift < 63 and position[0] < end:
        byte = data[position[0]]
        position[0] += 1
        bits |= <uint64_t>(byte & 0x7F) << shift
        if byte < 128:
            value[0] = <int64_t>(bits >> 1) ^ -<int64_t>(bits & 1)
            return True
        shift += 7
    return False


cdef inline bint varint(const uint8_t *data, Py_ssize_t end, Py_ssize_t *position, int64_t *value) noexcept nogil:
    """A signed varint of up to four bytes before `end`: a longer one is not common; False where there is none."""
    cdef Py_ssize_t first = position[0]
    return varlong(data, end, position, value) and position[0] - first <= 4


cdef struct Cursor:
    # A record of a records section: the one that ends at `end`, where the next one starts.
    const uint8_t *data
    Py_ssize_t size, start, rest, end, key, key_size  # The size of a key that is null is negative.
    int64_t base_offset, base_timestamp, offset, timestamp
    bint appended, is_tombstone


cdef void point_before(Cursor *at, object header, const uint8_t *data, Py_ssize_t size):
    """Before the first record."""
    at.data, at.size, at.end = data, size, 0
    at.base_offset, at.base_timestamp, at.timestamp = item(header, 0), item(header, 7), item(header, 8)
    at.appended = <int64_t>item(header, 5) & 8


cdef bint to_next(Cursor *at) noexcept nogil:
    """The next record; False where something is not common, damage included."""
    cdef Py_ssize_t position = at.end, end
    cdef int64_t length, delta
    at.start = position
    if not varint(at.data, at.size, &position, &length) or length < 6 or length > at.size - position:
        return False
    end = at.end = position + length
    position += 1
    if not varlong(at.data, end, &position, &delta):
        return False
    at.rest = position
    if not at.appended and overflows(at.base_timestamp, delta, &at.timestamp):
        return False
    if not varint(at.data, end, &position, &delta) or overflows(at.base_offset, delta, &at.offset):
        return False
    if not varint(at.data, end, &position, &length) or length > end - position:
        return False
    at.key, at.key_size = position, length
    if length >= 0:
        position += length
    if not varint(at.data, end, &position, &length) or length > end - position:
        return False
    at.is_tombstone = length < 0
    return True


def scan_records(object header, bytes data):
    cdef list spans = scan_common(header, data)
    return scan_reference(header, data) if spans is None else spans


cdef list scan_common(object header, bytes whole):
    """None where something is not common, damage included: its rules are the reference's."""
    cdef Cursor at
    cdef object key, made
    cdef list spans = []
    cdef int64_t count
    if not bound:
        bind()
    point_before(&at, header, <const uint8_t *>PyBytes_AS_STRING(whole), len(whole))
    count = item(header, 12)
    while count > 0:
        count -= 1
        if not to_next(&at):
            return None
        key = None
        if at.key_size >= 0:
            key = PyBytes_FromStringAndSize(<const char *>at.data + at.key, at.key_size)
        made = PyType_GenericAlloc(RecordSpan, 7)
        put(made, 0, at.offset)
        put(made, 1, at.timestamp)
        put(made, 2, key)
        put(made, 3, at.is_tombstone)
        put(made, 4, at.start)
        put(made, 5, at.rest)
        put(made, 6, at.end)
        spans.append(made)
    return spans if at.end == at.size else None


# ---- log/upkeep/latest_offsets.py --------------------------------------------------------------------------------

cdef struct Slot:
    uint64_t high, low  # The hash of a key.
    uint64_t after  # The offset after its latest record's; 0 where the slot is free.


cdef inline void sip_round(uint64_t *v) noexcept nogil:
    v[0] += v[1]
    v[1] = (v[1] << 13 | v[1] >> 51) ^ v[0]
    v[0] = v[0] << 32 | v[0] >> 32
    v[2] += v[3]
    v[3] = (v[3] << 16 | v[3] >> 48) ^ v[2]
    v[0] += v[3]
    v[3] = (v[3] << 21 | v[3] >> 43) ^ v[0]
    v[2] += v[1]
    v[1] = (v[1] << 17 | v[1] >> 47) ^ v[2]
    v[2] = v[2] << 32 | v[2] >> 32


cdef void hash_key(const uint64_t *secret, const uint8_t *key, Py_ssize_t size, uint64_t *high, uint64_t *low) noexcept nogil:
    """SipHash-2-4 with 128 bits: whoever does not know the secret cannot make keys that share a hash."""
    cdef uint64_t v[4]
    cdef uint64_t word
    cdef Py_ssize_t position = 0
    cdef int number
    v[0], v[1] = secret[0] ^ 0x736F6D6570736575U, secret[1] ^ 0x646F72616E646F6DU ^ 0xEE
    v[2], v[3] = secret[0] ^ 0x6C7967656E657261U, secret[1] ^ 0x7465646279746573U
    while size - position >= 8:
        memcpy(&word, key + position, 8)
        v[3] ^= word
        sip_round(v)
        sip_round(v)
        v[0] ^= word
        position += 8
    word = 0
    memcpy(&word, key + position, size - position)
    word |= <uint64_t>size << 56
    v[3] ^= word
    sip_round(v)
    sip_round(v)
    v[0] ^= word
    v[2] ^= 0xEE
    for number in range(4):
        sip_round(v)
    high[0] = v[0] ^ v[1] ^ v[2] ^ v[3]
    v[1] ^= 0xDD
    for number in range(4):
        sip_round(v)
    low[0] = v[0] ^ v[1] ^ v[2] ^ v[3]


cdef inline Slot *slot_of(Slot *slots, uint64_t count, uint64_t high, uint64_t low) noexcept nogil:
    """Where a key is, or the free slot where it belongs."""
    cdef uint64_t index = (high >> 32) * count >> 32
    while slots[index].after and (slots[index].high != high or slots[index].low != low):
        index += 1
        if index == count:
            index = 0
    return slots + index


cdef class LatestOffsets:
    """An open hash table of 24 bytes a slot, of which three quarters are used at most. It grows by doubling, from the
    size that reaches in this way what `capacity` keys need."""

    cdef Slot *slots
    cdef uint64_t slot_count, used
    cdef uint64_t secret[2]

    key_bytes = 48

    def __cinit__(self, Py_ssize_t capacity):
        self.slot_count = capacity * 4 // 3 + 1
        while self.slot_count > 1024:
            self.slot_count = (self.slot_count + 1) // 2
        self.slots = <Slot *>calloc(self.slot_count, sizeof(Slot))
        if self.slots == NULL:
            raise MemoryError
        # Python's own secret is in its hashes.
        self.secret[0], self.secret[1] = <uint64_t><int64_t>hash(b"latest"), <uint64_t><int64_t>hash(b"offsets")

    def __dealloc__(self):
        free(self.slots)

    def __len__(self):
        return self.used

    def put(self, bytes key, int64_t offset):
        if not self.note(<const uint8_t *>PyBytes_AS_STRING(key), len(key), offset):
            raise MemoryError

    def get(self, bytes key, default):
        cdef uint64_t after = self.after(<const uint8_t *>PyBytes_AS_STRING(key), len(key))
        return <int64_t>(after - 1) if after else default

    cdef bint note(self, const uint8_t *key, Py_ssize_t size, int64_t offset) noexcept nogil:
        """False if there is no memory."""
        cdef uint64_t high, low
        cdef Slot *slot
        hash_key(self.secret, key, size, &high, &low)
        slot = slot_of(self.slots, self.slot_count, high, low)
        if not slot.after:
            if self.used + 1 > self.slot_count // 4 * 3:
                if not self.grow():
                    return False
                slot = slot_of(self.slots, self.slot_count, high, low)
            slot.high, slot.low = high, low
            self.used += 1
        slot.after = <uint64_t>offset + 1
        return True

    cdef uint64_t after(self, const uint8_t *key, Py_ssize_t size) noexcept nogil:
        """The offset after that of a key's latest record; 0 where there is none."""
        cdef uint64_t high, low
        hash_key(self.secret, key, size, &high, &low)
        return slot_of(self.slots, self.slot_count, high, low).after

    cdef bint grow(self) noexcept nogil:
        cdef uint64_t count = self.slot_count * 2, index
        cdef Slot *slots = <Slot *>calloc(count, sizeof(Slot))
        if slots == NULL or count >> 32:
            free(slots)
            return False
        for index in range(self.slot_count):
            if self.slots[index].after:
                slot_of(slots, count, self.slots[index].high, self.slots[index].low)[0] = self.slots[index]
        free(self.slots)
        self.slots, self.slot_count = slots, count
        return True


cdef bint is_in_order(Cursor at, int64_t count, int64_t last_offset, int64_t furthest_ms) noexcept nogil:
    """Whether all records are common and none is where it must not be."""
    cdef int64_t previous = at.base_offset - 1
    while count > 0:
        count -= 1
        if not to_next(&at) or at.offset <= previous or at.timestamp < -furthest_ms or at.timestamp >= furthest_ms:
            return False
        previous = at.offset
    return at.end == at.size and previous <= last_offset


cdef bint note_all(LatestOffsets latest, Cursor at, int64_t count) noexcept nogil:
    """Note the keys of records that are in order; False if there is no memory."""
    while count > 0:
        count -= 1
        to_next(&at)
        if at.key_size >= 0 and not latest.note(at.data + at.key, at.key_size, at.offset):
            return False
    return True


def note_keys(object latest, object header, object data):
    cdef Py_buffer buffer
    cdef Cursor at
    cdef int64_t count = item(header, 12), last_offset
    cdef bint in_order = False, noted = True
    cdef LatestOffsets offsets
    if not bound:
        bind()
    if type(latest) is not LatestOffsets or overflows(item(header, 0), item(header, 6), &last_offset):
        return note_reference(latest, header, data)
    offsets = latest
    PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
    try:
        point_before(&at, header, <const uint8_t *>buffer.buf, buffer.len)
        with nogil:
            in_order = is_in_order(at, count, last_offset, FURTHEST_MS)
            if in_order:
                noted = note_all(offsets, at, count)
    finally:
        PyBuffer_Release(&buffer)
    if not noted:
        raise MemoryError
    return True if in_order else note_reference(latest, header, data)


cdef struct Kept:
    int64_t count, max_timestamp
    bint has_tombstones
    uint8_t *data  # What is left of a records section that has lost a record; else NULL.
    Py_ssize_t size


cdef bint keep_latest(LatestOffsets latest, Cursor at, int64_t count, int64_t end_offset, bint expired, Kept *kept) noexcept nogil:
    """Keep the records of a section, which are in order, that no later one supersedes; False if there is no memory."""
    cdef Py_ssize_t run = 0  # Where the records begin that are kept and not copied yet.
    cdef bint stays
    kept.count, kept.max_timestamp, kept.has_tombstones, kept.data, kept.size = 0, -1, False, NULL, 0
    while count > 0:
        count -= 1
        to_next(&at)
        stays = at.offset >= end_offset or (
            at.key_size >= 0
            and not (expired and at.is_tombstone)
            and latest.after(at.data + at.key, at.key_size) <= <uint64_t>at.offset + 1
        )
        if stays:
            if kept.count == 0 or at.timestamp > kept.max_timestamp:
                kept.max_timestamp = at.timestamp
            kept.count += 1
            kept.has_tombstones = kept.has_tombstones or at.is_tombstone
            continue
        if kept.data == NULL:
            kept.data = <uint8_t *>malloc(at.size)
            if kept.data == NULL:
                return False
        memcpy(kept.data + kept.size, at.data + run, at.start - run)
        kept.size += at.start - run
        run = at.end
    if kept.data != NULL:
        memcpy(kept.data + kept.size, at.data + run, at.size - run)
        kept.size += at.size - run
    return True


def kept_records(object latest, object header, object data, int64_t end_offset, bint tombstones_expired):
    cdef Py_buffer buffer
    cdef Cursor at
    cdef Kept kept
    cdef int64_t count = item(header, 12), last_offset
    cdef bint in_order = False, done = True
    cdef LatestOffsets offsets
    cdef object left = data
    if not bound:
        bind()
    if type(latest) is not LatestOffsets or overflows(item(header, 0), item(header, 6), &last_offset):
        return kept_reference(latest, header, data, end_offset, tombstones_expired)
    offsets = latest
    PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
    try:
        point_before(&at, header, <const uint8_t *>buffer.buf, buffer.len)
        with nogil:
            in_order = is_in_order(at, count, last_offset, FURTHEST_MS)
            if in_order:
                done = keep_latest(offsets, at, count, end_offset, tombstones_expired, &kept)
    finally:
        PyBuffer_Release(&buffer)
    if not in_order:
        return kept_reference(latest, header, data, end_offset, tombstones_expired)
    if not done:
        raise MemoryError
    if kept.data != NULL:
        try:
            left = PyBytes_FromStringAndSize(<const char *>kept.data, kept.size)
        finally:
            free(kept.data)
    return KeptRecords(kept.count, kept.has_tombstones, kept.max_timestamp, left)


# ---- log/batches.py ----------------------------------------------------------------------------------------------

def accept(object frame, Py_ssize_t start, Py_ssize_t end, int64_t max_bytes, int64_t latest_ms, int flags=0):
    return accept_one(frame, start, end, max_bytes, latest_ms, flags)


cdef object accept_one(
    object frame, Py_ssize_t start, Py_ssize_t end, int64_t max_bytes, int64_t latest_ms, int flags
):
    cdef Py_buffer buffer
    cdef const uint8_t *batch
    cdef Py_ssize_t size = end - start
    cdef int32_t count, sequence
    cdef int64_t max_timestamp, producer_id
    cdef int16_t attributes, epoch
    cdef uint32_t crc
    cdef object made, data
    if not bound:
        bind()
    if size < 61 or size > max_bytes:
        return None
    PyObject_GetBuffer(frame, &buffer, PyBUF_SIMPLE)
    if start < 0 or end > buffer.len:
        PyBuffer_Release(&buffer)
        raise ValueError("the batch is not within its frame")
    batch = <const uint8_t *>buffer.buf + start
    count, attributes = <int32_t>load(batch + 57, 4), <int16_t>load(batch + 21, 2)
    producer_id, epoch, sequence = <int64_t>load(batch + 43, 8), <int16_t>load(batch + 51, 2), <int32_t>load(batch + 53, 4)
    max_timestamp, crc = <int64_t>load(batch + 35, 8), <uint32_t>load(batch + 17, 4)
    if (
        <int32_t>load(batch + 8, 4) + <int64_t>12 != size
        or batch[16] != 2
        or load(batch, 8) != 0
        or count < 1
        or count != <int32_t>load(batch + 23, 4) + <int64_t>1
        or attributes & (0x28 if flags else 0x38)
        or attributes & 0x07 > 4
        or max_timestamp > latest_ms
        or (producer_id >= 0 and (sequence < 0 or epoch < 0))
        or (producer_id < 0 and attributes & 0x10)
    ):
        PyBuffer_Release(&buffer)
        return None
    PyBuffer_Release(&buffer)
    data = PySequence_GetSlice(PyMemoryView_FromObject(frame), start, end)
    if <uint32_t>crc32c(PySequence_GetSlice(data, 21, size)) != crc:
        return None
    made = PyType_GenericAlloc(Accepted, 8)
    put(made, 0, data)
    put(made, 1, count)
    put(made, 2, producer_id)
    put(made, 3, epoch)
    put(made, 4, sequence)
    put(made, 5, max_timestamp)
    put(made, 6, -1)
    put(made, 7, flags if attributes & 0x10 else 0)
    return made


def accept_shares(
    object frame, list shares, list partitions, int64_t max_bytes, int64_t latest_ms, int flags=0
):
    cdef list accepted = []
    cdef object share, batch, first = None, name, topic_id
    cdef Py_ssize_t index, count = len(partitions)
    share = shares[0]
    name, topic_id = item(share, 0), item(share, 1)
    for share in shares:
        index = item(share, 2)
        if index < 0 or index >= count:
            return None
        if first is not None and (item(share, 0) != name or item(share, 1) != topic_id):
            return None
        batch = accept_one(frame, item(share, 3), item(share, 4), max_bytes, latest_ms, flags)
        if batch is None:
            return None
        if first is None:
            first = batch
        elif item(batch, 2) != item(first, 2) or item(batch, 7) != item(first, 7):
            return None
        accepted.append((partitions[index], batch))
    return accepted


# ---- log/flush.py ------------------------------------------------------------------------------------------------

cdef inline bint is_next(object state, object batch) except -1:
    cdef object batches
    cdef int64_t epoch = item(batch, 3), known = state.epoch, sequence = item(batch, 4)
    if epoch < known:
        return False
    batches = state.batches if epoch == known else ()
    if not batches:
        return sequence == 0
    return sequence == (<int64_t>PySequence_GetItem(batches, -1).last_sequence + 1) & 0x7FFFFFFF


cdef object sequence_of(object batch, int64_t offset):
    cdef object made = SequenceBatch.__new__(SequenceBatch)
    cdef int64_t first = item(batch, 4), count = item(batch, 1)
    made.first_sequence = item(batch, 4)
    made.last_sequence = (first + count - 1) & 0x7FFFFFFF
    made.base_offset = offset
    made.last_offset = offset + count - 1
    made.timestamp = item(batch, 5)
    return made


cdef inline int remember(object state, object batch) except -1:
    cdef tuple known = state.batches
    cdef Py_ssize_t count = len(known)
    state.batches = (known if count < 5 else known[count - 4:]) + (batch,)
    return 0


def append_in_order(
    object share, list pending, Py_ssize_t first, object now_ms, object refusal, dict admitted,
):
    cdef object partition = share.partition, row, batch, producer_id, state, known, epoch, within = share.transactional
    cdef dict producers = share.producers, known_producers, ongoing
    cdef list appended = share.appended
    cdef Py_ssize_t number = first, count = len(pending)
    cdef int64_t offset, size
    cdef int flags
    if not bound:
        bind()
    known_producers, ongoing = partition.producers, partition.transactions
    offset, size = share.next_offset, share.byte_length
    while number < count:
        row = pending[number]
        batch = item(row, 0)
        producer_id = item(batch, 2)
        if producer_id >= 0:
            state = producers.get(producer_id)
            known = known_producers.get(producer_id) if state is None else state
            if known is None or not is_next(known, batch):
                break
            epoch = item(batch, 3)
            flags = item(batch, 7)
            if flags:
                if not flags & 8 or admitted.get(producer_id) != epoch:
                    if refusal is None or refusal(partition, batch) is not NO_ERROR:
                        break
                    if flags & 8:
                        admitted[producer_id] = epoch
                if within is None:
                    within = share.transactional = {}
                within[producer_id] = None
            elif producer_id in ongoing or (within is not None and producer_id in within):
                break
            if state is None or epoch != state.epoch:
                state = producers[producer_id] = ProducerState(
                    producer_id, epoch, now_ms, known.batches if epoch == known.epoch else ()
                )
            state.last_ms = now_ms
            remember(state, sequence_of(batch, offset))
        appended.append((batch, item(row, 1), item(row, 2), offset))
        offset += <int64_t>item(batch, 1)
        size += len(item(batch, 0))
        number += 1
    share.next_offset = offset
    share.byte_length = size
    return number


def append_marker(object share, object batch, object ticket, object now_ms):
    cdef object producer_id = item(batch, 2), epoch = item(batch, 3), state, known, offset = share.next_offset
    cdef object within = share.transactional
    cdef dict producers = share.producers
    if not bound:
        bind()
    share.appended.append((batch, ticket, 0, offset))
    share.next_offset = offset + item(batch, 1)
    share.byte_length += len(item(batch, 0))
    if within is None:
        within = share.transactional = {}
    within[producer_id] = None
    state = producers.get(producer_id)
    if state is None:
        known = share.partition.producers.get(producer_id)
        if known is not None and known.epoch >= epoch:
            state = ProducerState(producer_id, known.epoch, known.last_ms, known.batches)
            producers[producer_id] = state
    if state is None or epoch > state.epoch:
        producers[producer_id] = state = ProducerState(producer_id, epoch, now_ms)
    state.last_ms = now_ms


def settle_appended(object share, int64_t moved):
    cdef object log_start = share.partition.log_start, row, batch, ticket, answer, remaining
    cdef list appended = share.appended
    if not bound:
        bind()
    for row in appended:
        batch, ticket = item(row, 0), item(row, 1)
        offset = <int64_t>item(row, 3) + moved
        answer = PyType_GenericAlloc(Appended, 6)
        put(answer, 0, NO_ERROR)
        put(answer, 1, offset)
        put(answer, 2, item(batch, 6))
        put(answer, 3, log_start)
        put(answer, 4, None)
        put(answer, 5, ())
        if type(ticket) is Ticket:
            ticket.results[item(row, 2)] = answer
            remaining = ticket.remaining - 1
            ticket.remaining = remaining
            if not remaining:
                ticket.finish(ticket.results)
        else:
            ticket.settle(item(row, 2), answer)


# ---- log/fair_queue.py -------------------------------------------------------------------------------------------

def fitting(list pending, int64_t room_bytes, int64_t room_batches):
    cdef Py_ssize_t count, most = len(pending)
    cdef int64_t size = 0, offsets = 0
    cdef object batch
    if not bound:
        bind()
    if most == 1:
        return 1
    most = min(most, room_batches, SHARE_MAX_BATCHES)
    for count in range(most):
        batch = item(pending[count], 0)
        size += len(item(batch, 0))
        offsets += <int64_t>item(batch, 1)
        if count and (size > room_bytes or offsets > SHARE_MAX_OFFSETS):
            return count
    return most


def count_waiting(dict waiting_count, object batch):
    cdef object producer = (item(batch, 2), item(batch, 3)), waiting = waiting_count.get(producer)
    waiting_count[producer] = 1 if waiting is None else waiting + 1


def uncount_waiting(dict waiting_count, list taken):
    cdef object row, batch, producer
    cdef int64_t waiting
    for row in taken:
        batch = item(row, 0)
        if item(batch, 7):
            producer = (item(batch, 2), item(batch, 3))
            waiting = waiting_count[producer]
            if waiting == 1:
                del waiting_count[producer]
            else:
                waiting_count[producer] = waiting - 1


# ---- log/markers.py ----------------------------------------------------------------------------------------------

def marker(*, object producer_id, object epoch, bint commit, int32_t coordinator_epoch, object now_ms):
    cdef bytes made = PyBytes_FromStringAndSize(NULL, 78)
    cdef uint8_t *at = <uint8_t *>PyBytes_AS_STRING(made)
    cdef uint64_t time = <uint64_t><int64_t>now_ms
    cdef object batch
    if not bound:
        bind()
    memset(at, 0, 78)
    store(at + 8, 66, 4)
    store(at + 12, <uint32_t>LEADER_EPOCH, 4)
    at[16] = 2
    at[22] = 0x30
    store(at + 27, time, 8)
    store(at + 35, time, 8)
    store(at + 43, <uint64_t><int64_t>producer_id, 8)
    store(at + 51, <uint16_t><int16_t>epoch, 2)
    memset(at + 53, 0xFF, 4)
    at[60] = 1
    # One record: its key is a version and what became of the transaction, its value a version and an epoch.
    at[61], at[65], at[69], at[70] = 32, 8, commit, 12
    store(at + 73, <uint32_t>coordinator_epoch, 4)
    store(at + 17, <uint32_t>crc32c(made[21:]), 4)
    batch = PyType_GenericAlloc(Accepted, 8)
    put(batch, 0, made)
    put(batch, 1, 1)
    put(batch, 2, producer_id)
    put(batch, 3, epoch)
    put(batch, 4, -1)
    put(batch, 5, now_ms)
    put(batch, 6, -1)
    put(batch, 7, 3 if commit else 7)
    return batch


# ---- log/upkeep/wal_plan.py --------------------------------------------------------------------------------------

def note_producers(dict producers, object base, tuple batches, object committed_ms):
    cdef object batch, producer, producer_id
    cdef Py_ssize_t found = 0
    if not bound:
        bind()
    for batch in batches:
        producer_id = item(batch, 0)
        producer = producers.get(producer_id)
        if producer is None or item(batch, 1) > producer.epoch:
            found += producer is None
            producer = producers[producer_id] = PassProducer(item(batch, 1), committed_ms)
        producer.last_ms = committed_ms
        if not <int>item(batch, 6) & 2:
            producer.batches.append((base, batch))
    return found


# ---- log/layout.py -----------------------------------------------------------------------------------------------

def lay_out(object body, list shares):
    cdef Py_buffer target, source
    cdef uint8_t *at
    cdef Py_ssize_t position
    cdef object share, row
    PyObject_GetBuffer(body, &target, PyBUF_WRITABLE)
    try:
        for share in shares:
            position = share.byte_start
            for row in <list>share.appended:
                PyObject_GetBuffer(item(item(row, 0), 0), &source, PyBUF_SIMPLE)
                if position < 0 or source.len < 16 or source.len > target.len - position:
                    PyBuffer_Release(&source)
                    raise ValueError("a batch does not fit where it belongs")
                at = <uint8_t *>target.buf + position
                memcpy(at, source.buf, source.len)
                store(at, <uint64_t><int64_t>item(row, 3), 8)
                store(at + 8, source.len - 12, 4)
                memset(at + 12, 0, 4)
                position += source.len
                PyBuffer_Release(&source)
    finally:
        PyBuffer_Release(&target)


def describe(list shares):
    cdef list entries = [], batches, appended
    cdef object share, row, batch, made, base, latest
    cdef int64_t base_offset
    if not bound:
        bind()
    for share in shares:
        appended, base = share.appended, share.base
        base_offset = base
        batches, latest = [], None
        for row in appended:
            batch = item(row, 0)
            if latest is None or item(batch, 5) > latest:
                latest = item(batch, 5)
            if item(batch, 2) < 0:
                continue
            last_delta, delta = <int64_t>item(batch, 1) - 1, <int64_t>item(row, 3) - base_offset
            made = PyType_GenericAlloc(ProducerBatch, 7)
            put(made, 0, item(batch, 2))
            put(made, 1, item(batch, 3))
            put(made, 2, item(batch, 4))
            put(made, 3, last_delta)
            put(made, 4, delta)
            put(made, 5, item(batch, 5))
            put(made, 6, item(batch, 7))
            batches.append(made)
        fields = (
            share.partition.partition_id, share.byte_start, share.byte_length, share.next_offset - base, len(appended),
            latest, tuple(batches),
        )
        made = PyType_GenericAlloc(CommitEntry, 8)
        for position in range(7):
            put(made, position, fields[position])
        put(made, 7, None)
        entries.append(made)
    return entries


# ---- log/commits.py ----------------------------------------------------------------------------------------------

cdef inline uint8_t *put_unsigned(uint8_t *at, object value) except NULL:
    """Four bytes, and an error where they do not hold the value."""
    cdef uint32_t number = value
    store(at, number, 4)
    return at + 4


def follow_all(dict ongoing, list aborted, int64_t base, tuple batches, object now_ms):
    cdef object batch, made, producer_id, ended, offset, first
    cdef int flags
    if not bound:
        bind()
    for batch in batches:
        flags = item(batch, 6)
        if not flags:
            continue
        producer_id = item(batch, 0)
        if not flags & 2:
            if producer_id not in ongoing:
                offset = base + <int64_t>item(batch, 4)
                made = PyType_GenericAlloc(OpenTransaction, 2)
                put(made, 0, offset)
                put(made, 1, now_ms)
                ongoing[producer_id] = made
            continue
        ended = ongoing.pop(producer_id, None)
        if ended is not None and flags & 4:
            offset = base + <int64_t>item(batch, 4)
            first = next(iter(ongoing.values()), None)
            aborted.append(
                AbortedTransaction(
                    producer_id, item(ended, 0), offset, offset + 1 if first is None else item(first, 0)
                )
            )


def pack_unsealed(object entries):
    cdef object entry, batch
    cdef tuple batches
    cdef bint flagged = False
    cdef Py_ssize_t size = 1
    cdef bytes made
    cdef uint8_t *at
    cdef Py_ssize_t count
    for entry in entries:
        if item(entry, 7):
            return None
        batches = item(entry, 6)
        count = len(batches)
        if count > 0xFFFF:
            raise OverflowError("more producer batches than an entry can count")
        size += 34 + 30 * count
        for batch in batches:
            if item(batch, 6):
                flagged = True
    if flagged:
        for entry in entries:
            size += len(<tuple>item(entry, 6))
    made = PyBytes_FromStringAndSize(NULL, size)
    at = <uint8_t *>PyBytes_AS_STRING(made)
    at[0] = 2 if flagged else 1
    at += 1
    for entry in entries:
        batches = item(entry, 6)
        count = len(batches)
        store(at, <uint64_t><int64_t>item(entry, 0), 8)
        at = put_unsigned(at + 8, item(entry, 1))
        at = put_unsigned(at, item(entry, 2))
        at = put_unsigned(at, item(entry, 3))
        at = put_unsigned(at, item(entry, 4))
        store(at, <uint64_t><int64_t>item(entry, 5), 8)
        store(at + 8, count, 2)
        at += 10
        for batch in batches:
            store(at, <uint64_t><int64_t>item(batch, 0), 8)
            store(at + 8, <uint16_t><int16_t>item(batch, 1), 2)
            store(at + 10, <uint32_t><int32_t>item(batch, 2), 4)
            at = put_unsigned(at + 14, item(batch, 3))
            at = put_unsigned(at, item(batch, 4))
            store(at, <uint64_t><int64_t>item(batch, 5), 8)
            at += 8
            if flagged:
                at[0] = item(batch, 6) & 7
                at += 1
    return made


def unpack_unsealed(bytes blob):
    cdef const uint8_t *at = <const uint8_t *>PyBytes_AS_STRING(blob)
    cdef const uint8_t *end = at + len(blob)
    cdef Py_ssize_t width, count, number
    cdef list entries = []
    cdef object entry, batches, batch
    if not bound:
        bind()
    if at == end or (at[0] != 1 and at[0] != 2):
        return None
    width = 30 + (at[0] == 2)
    at += 1
    while at < end:
        if end - at < 34:
            return None
        count = <Py_ssize_t>load(at + 32, 2)
        if end - at - 34 < count * width:
            return None
        entry = PyType_GenericAlloc(CommitEntry, 8)
        put(entry, 0, <int64_t>load(at, 8))
        put(entry, 1, <uint32_t>load(at + 8, 4))
        put(entry, 2, <uint32_t>load(at + 12, 4))
        put(entry, 3, <uint32_t>load(at + 16, 4))
        put(entry, 4, <uint32_t>load(at + 20, 4))
        put(entry, 5, <int64_t>load(at + 24, 8))
        at += 34
        batches = PyTuple_New(count)
        for number in range(count):
            batch = PyType_GenericAlloc(ProducerBatch, 7)
            put(batch, 0, <int64_t>load(at, 8))
            put(batch, 1, <int16_t>load(at + 8, 2))
            put(batch, 2, <int32_t>load(at + 10, 4))
            put(batch, 3, <uint32_t>load(at + 14, 4))
            put(batch, 4, <uint32_t>load(at + 18, 4))
            put(batch, 5, <int64_t>load(at + 22, 8))
            put(batch, 6, at[30] if width > 30 else 0)
            put(batches, number, batch)
            at += width
        put(entry, 6, batches)
        put(entry, 7, None)
        entries.append(entry)
    return entries


# ---- quotas/throttles.py -----------------------------------------------------------------------------------------

def count_within_limits(object client, object size_bytes, double now_ms):
    cdef object produce = client.produce, request_time = client.request_time, rate
    cdef double total
    if client.cluster_limits is not None or (
        request_time is not None and <double>request_time.rate.total > <double>request_time.safe_total
    ):
        return False
    if produce is not None:
        rate = produce.rate
        total = <double>rate.total + <double>size_bytes
        if now_ms >= <double>rate.sample_ends_ms or total > <double>produce.safe_total:
            return False
        rate.last_ms = now_ms
        rate.total = total
    return True


def count_time(object client, double since_ms, double now_ms):
    cdef object request_time = client.request_time, rate
    cdef double spent = (now_ms - since_ms) / 10
    if request_time is None:
        return
    rate = request_time.rate
    if now_ms < <double>rate.sample_ends_ms:
        rate.last_ms = now_ms
        rate.total = <double>rate.total + spent
    else:
        rate.record(spent, now_ms)
