"""How the CPU kernels are compiled and spread over threads; imported by them alone, for it imports numba.

A kernel takes `threads, first, last` before its other parameters and begins with ``if divided(threads, first, last):
return``; :func:`run` calls it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import torch
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.core.callconv import RETCODE_USEREXC
from numba.extending import intrinsic

_Function = TypeVar("_Function", bound=Callable[..., Any])

_WORTH_A_THREAD = 2**16  # items that keep a core busy for longer than it takes to wake a thread
_PIECES = 4  # for each thread, so that none waits long for another
_PROCESS = os.getpid()  # where this is imported: threads do not survive a fork
_WORD, _INT, _POINTER = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()


def compiled(*, fastmath: set[str] | bool = False) -> Callable[[_Function], _Function]:
    """Return a decorator that compiles a kernel at its first call, kept on disk, to run without the GIL."""

    def decorate(function: _Function) -> _Function:
        # Not `parallel=True`: numba's own threads neither survive a fork nor heed torch.set_num_threads.
        kernel = numba.njit(function, nogil=True, cache=True, error_model="numpy", fastmath=fastmath)
        return cast(_Function, kernel)

    return decorate


def run(kernel: Callable[..., object], count: int, work: int, *arguments: object) -> None:
    """Call `kernel` on parts of range(`count`), in as many threads as torch and `work` allow.

    Args:
        kernel: what :func:`compiled` returned, and what :func:`divided` divides.
        count: items that may be divided among threads.
        work: array elements to be written in all; too few are left to the calling thread.
        arguments: passed on.
    """
    allowed = torch.get_num_threads() if os.getpid() == _PROCESS else 1
    kernel(min(allowed, count, work // _WORTH_A_THREAD), 0, count, *arguments)


@intrinsic  # type: ignore[untyped-decorator]
def divided(typing: Any, threads: Any, first: Any, last: Any) -> Any:
    """Return whether the work is done, the kernel that asks having been called on parts of its items by `threads`.

    The arguments are the first three parameters of that kernel. Native code calls it, as it does a loop of torch: by
    way of Python that takes 50 µs more, for a thread has to wait until another gives up the GIL.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        threads, first, last = values
        given = builder.function.args[5:]  # after two of numba's own and those three
        several = builder.icmp_signed(">", threads, _WORD(1))
        with builder.if_then(several):
            items, most = builder.sub(last, first), builder.mul(threads, _WORD(_PIECES))
            pieces = builder.select(builder.icmp_signed("<", items, most), items, most)
            shared = cgutils.pack_struct(builder, [_WORD(0), _POINTER(None), pieces, first, items, *given])
            place = cgutils.alloca_once(builder, shared.type)
            builder.store(shared, place)
            task, data = _task(builder.function, place.type), builder.bitcast(place, _POINTER)
            arguments = task, data, builder.trunc(threads, _INT), _INT(0)
            kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, _TEAM), arguments)
            failure = builder.load(cgutils.gep_inbounds(builder, place, 0, 1))
            with cgutils.if_unlikely(builder, cgutils.is_not_null(builder, failure)):
                says = builder.function.args[1]
                builder.store(builder.bitcast(failure, says.type.pointee), says)
                builder.ret(RETCODE_USEREXC)
        return several

    return types.boolean(types.int64, types.int64, types.int64), generate


def _task(kernel: Any, kind: Any) -> Any:
    """Return a native function that calls `kernel` on one part after another, as long as there are more.

    It takes a pointer of type `kind` to what the threads share: the number of the next part, what a call has failed
    with, the number of parts, the first item, the number of items, and the other arguments of `kernel`.
    """
    task = ir.Function(kernel.module, ir.FunctionType(ir.VoidType(), [_POINTER]), f"{kernel.name}.task")
    task.linkage = "internal"
    builder = ir.IRBuilder(task.append_basic_block())
    place = builder.bitcast(task.args[0], kind)
    next_part, failure, *constants = (
        cgutils.gep_inbounds(builder, place, 0, field) for field in range(len(kind.pointee.elements))
    )
    parts, start, items, *given = map(builder.load, constants)
    result, says = (builder.alloca(argument.type.pointee) for argument in kernel.args[:2])
    head, body, end = (task.append_basic_block() for _ in range(3))
    builder.branch(head)

    builder.position_at_end(head)
    part = builder.atomic_rmw("add", next_part, _WORD(1), "monotonic")
    builder.cbranch(builder.icmp_signed("<", part, parts), body, end)

    builder.position_at_end(body)
    first, last = (
        builder.add(start, builder.sdiv(builder.mul(items, edge), parts))
        for edge in (part, builder.add(part, _WORD(1)))
    )
    status = builder.call(kernel, [result, says, _WORD(1), first, last, *given])
    with builder.if_then(builder.icmp_signed(">=", status, RETCODE_USEREXC), likely=False):
        builder.store(builder.bitcast(builder.load(says), _POINTER), failure)
    builder.branch(head)

    builder.position_at_end(end)
    builder.ret_void()
    return task


_Task = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_Team = ctypes.CFUNCTYPE(None, _Task, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
_pool = ThreadPoolExecutor(os.cpu_count())


def _call_in_pool(task: Callable[[int], None], shared: int, threads: int, _: int) -> None:
    for call in [_pool.submit(task, shared) for _ in range(threads)]:
        call.result()


_pooled = _Team(_call_in_pool)


def _team() -> Any:
    """Return the C function that calls another in several of the OpenMP threads of torch, or else of a pool.

    The former wait for their next work by spinning, so that a thread of our own would have to share a core with them.
    """
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        return ctypes.CDLL(str(library)).GOMP_parallel
    except (OSError, AttributeError):  # no Linux, or an OpenMP of another kind
        return _pooled


_TEAM = "multilevel_loss_team"
binding.add_symbol(_TEAM, ctypes.cast(_team(), ctypes.c_void_p).value)
