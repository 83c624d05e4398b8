# SPDX-License-Identifier: GPL-2.0-only
"""Handlers with which programs ask the host to fill and check a GPU's memory from
outside the machine, and to change what the model does.

  restore                         undoes what an earlier program has changed
  soil ADDRESS COUNT [STEP]       fills it with bytes other than zero
  remains ADDRESS COUNT [STEP]    "N first ADDRESS" of bytes other than zero, or
                                  "0"
  is_soiled ADDRESS COUNT         fails if a byte is not as soil made it
  drop ADDRESS COUNT              frees the pages, which then read as zeros
  soil_at_reset GPU ADDRESS COUNT from now on, each reset of the model soils the
                                  range again; COUNT 0 ends that
  engine GPU ADDRESS              from now on, the GPU writes there until it is
                                  reset
  engine_stopped GPU              whether a reset has ended that; waits for it
  after_reset GPU MS|never        how long the model is not ready after a reset
  answer GPU 0|1                  the model's answer()
  inactive_after_reset GPU        after a reset, the memory of a model with a CXL
                                  DVSEC is known and never active
  guard GPU ADDRESS COUNT         from now on, watches memory while the model has
                                  no power
  guarded GPU                     how many power cycles there were, and in how
                                  many memory was written
  dma_read GPU ADDRESS COUNT, dma_write GPU ADDRESS HEX
                                  DMA by the model

With a STEP, only the last page and a page at each multiple of STEP count, which
is faster."""

import ctypes
import threading
import time

CHUNK = 16 << 20
PAGE = 4096
SOIL = bytes(range(1, 252)) * (CHUNK // 251 + 2)
ZEROS = bytes(CHUNK)
PUNCH_HOLE_KEEP_SIZE = 3
# On a machine that pauses, a thread that did not end in this time is stuck.
STUCK_S = 300


def soil_of(address, count):
    """What soil() writes. It depends on the address, so that misplaced data is
    found as well."""
    start = address % 251
    return SOIL[start:start + count]


def chunks(address, count, step="0"):
    """(address, bytes) of the pieces that are read at once."""
    address, count, step = int(address, 0), int(count, 0), int(step, 0)
    if step:
        last = (count - 1) // PAGE * PAGE
        for offset in (*range(0, last, step), last):
            yield address + offset, min(PAGE, count - offset)
        return
    while count:
        piece = min(count, CHUNK)
        yield address, piece
        address += piece
        count -= piece


def soil(machine, address, count, step="0"):
    for at, piece in chunks(address, count, step):
        machine.write_gpu_memory(at, soil_of(at, piece))


def remains(machine, address, count, step="0"):
    found, first = 0, None
    for at, piece in chunks(address, count, step):
        data = machine.read_gpu_memory(at, piece)
        if data == ZEROS[:piece]:
            continue
        if first is None:
            first = at + next(i for i, byte in enumerate(data) if byte)
        found += piece - data.count(0)
    return f"{found} first {first:#x}" if found else "0"


def is_soiled(machine, address, count):
    for at, piece in chunks(address, count):
        if machine.read_gpu_memory(at, piece) != soil_of(at, piece):
            raise ValueError(f"there is something else at {at:#x}")


def free(machine, address, count):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(machine.memory_fd, PUNCH_HOLE_KEEP_SIZE, ctypes.c_long(address - machine.memory_address),
                      ctypes.c_long(count)):
        raise OSError(ctypes.get_errno(), "fallocate")


def drop(machine, address, count):
    free(machine, int(address, 0), int(count, 0))


def soil_at_reset(machine, gpu, address, count):
    wanted = int(count, 0)
    machine.models[gpu].gpu.on_reset = (lambda: soil(machine, address, count)) if wanted else None


class Engine:
    """A GPU at work: it writes a byte again and again until its next reset."""

    of_gpu = {}

    def __init__(self, machine, gpu, address):
        self.machine, self.address = machine, int(address, 0)
        self.model = machine.models[gpu].gpu
        self.resets = self.model.counters["resets"]
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        Engine.of_gpu[gpu] = self

    def run(self):
        while True:
            # A reset takes the lock too, so no write follows it.
            with self.model.lock:
                if self.model.counters["resets"] != self.resets:
                    return
                self.machine.write_gpu_memory(self.address, b"\x55")
            time.sleep(0.001)


def engine(machine, gpu, address):
    Engine(machine, gpu, address)


def engine_stopped(machine, gpu):
    thread = Engine.of_gpu[gpu].thread
    # After a reset, the thread ends as soon as it runs.
    thread.join(STUCK_S)
    return str(int(not thread.is_alive()))


def after_reset(machine, gpu, ms):
    machine.models[gpu].gpu.set_reset_delay(None if ms == "never" else int(ms, 0))


def answer(machine, gpu, on):
    machine.models[gpu].gpu.answer(bool(int(on)))


def gone_at_reset(machine, gpu):
    """The next reset takes the GPU off the bus, until "answer GPU 1"."""
    model = machine.models[gpu].gpu
    def leave():
        model.answers, model.on_reset = False, None
    model.on_reset = leave


def inactive_after_reset(machine, gpu):
    machine.models[gpu].gpu.timers["cxl_active"].reset_ms = None


class Guard:
    """Watches GPU memory while the model has no power. Meanwhile the memory has
    other content, so that a reader gets wrong data and a write is found here.
    Accesses to the machine's memory leave no other trace."""

    of_gpu = {}

    def __init__(self, machine, gpu, address, count):
        self.machine, self.address, self.count = machine, address, count
        self.touched = self.cycles = 0
        self.content = self.cover = None
        machine.models[gpu].gpu.on_power = self.power
        Guard.of_gpu[gpu] = self

    def power(self, on):
        if not on:
            self.content = self.machine.read_gpu_memory(self.address, self.count)
            self.cover = bytes(b ^ 0x5A for b in self.content)
            self.machine.write_gpu_memory(self.address, self.cover)
        elif self.content is not None:
            self.touched += self.machine.read_gpu_memory(self.address, self.count) != self.cover
            self.machine.write_gpu_memory(self.address, self.content)
            self.cycles += 1


def guard(machine, gpu, address, count):
    Guard(machine, gpu, int(address, 0), int(count, 0))


def guarded(machine, gpu):
    return f"{Guard.of_gpu[gpu].cycles} {Guard.of_gpu[gpu].touched}"


def dma_read(machine, gpu, address, count):
    return machine.models[gpu].dma_read(int(address, 0), int(count, 0)).hex()


def dma_write(machine, gpu, address, data):
    machine.models[gpu].dma_write(int(address, 0), bytes.fromhex(data))


def restore(machine):
    """Undo what an earlier program has changed of the models, and free the GPU
    memory that it touched: it is this host's, and several machines run at once."""
    if machine.memory_size:
        free(machine, machine.memory_address, machine.memory_size)
    for server in machine.models.values():
        server.gpu.restore_readiness()


HANDLERS = {f.__name__: f for f in (soil, remains, is_soiled, drop, soil_at_reset, engine, engine_stopped, after_reset, answer,
                                    gone_at_reset, inactive_after_reset, restore, guard, guarded, dma_read, dma_write)}
