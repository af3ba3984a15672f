/* For LD_PRELOAD: allocations that fail, of Python (all three domains of its allocators) and of hoop's own C code. Both
 * are counted together, from fail_allocations() on, over all threads.
 *
 *   fail_allocations(first, last, owners)
 *                          those with a number from first to last - 1 fail; the first made has number 1; only those of
 *                          the owners count, a sum of values of `owner` below
 *   allocations_made()     how many there were
 *   pause_failing(yes)     between yes and no they neither fail nor count
 *   stop_failing()         none fails any more, none is counted
 *
 * Code of hoop's lies in one of the shared objects below a folder "hoop". With SHOW_FAILED_ALLOCATIONS in the
 * environment each one that fails prints a backtrace. */
#include <dlfcn.h>
#include <execinfo.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <unwind.h>

/* As in CPython's cpython/pymem.h. */
typedef struct allocator {
    void *context;
    void *(*malloc)(void *context, size_t size);
    void *(*calloc)(void *context, size_t count, size_t size);
    void *(*realloc)(void *context, void *block, size_t size);
    void (*free)(void *context, void *block);
} allocator;

typedef void (*exchange_allocator)(int domain, allocator *allocator);

enum { DOMAINS = 3, MOST_FRAMES = 40, KNOWN_ADDRESSES = 8192, VERDICT_BITS = 4 };

/* On whose behalf memory is asked for: the first on the stack that is neither an allocator nor a function of Python's C
 * API. */
typedef enum owner {
    OWNER_HOOP = 1,        /* its compiled code */
    OWNER_INTERPRETER = 2, /* Python code: hoop's, asyncio's or the program's */
    OWNER_OTHER = 4,       /* a compiled module of somebody else's: _asyncio, _socket, ... */
    /* what Cython makes for the lines of tracebacks: its `except` does not bear that they are missing */
    OWNER_TRACEBACK = 8
} owner;

static allocator former[DOMAINS];
static atomic_bool is_counting, is_paused;
static atomic_long made, first_failing, first_good;
static atomic_int owners;
static const void *python_object, *own_object;

static const void *object_of(const void *address)
{
    Dl_info info;
    return dladdr(address, &info) != 0 ? info.dli_fbase : NULL;
}

static bool is_of_hoop(const Dl_info *info)
{
    return info->dli_fname != NULL && strstr(info->dli_fname, "/hoop/") != NULL;
}

static bool is_of_traceback(const char *function)
{
    static const char *const functions[] = {"PyCode_NewEmpty", "PyFrame_New", "PyTraceBack_Here"};
    for (size_t i = 0; i < sizeof(functions) / sizeof(*functions); i++) {
        if (strcmp(function, functions[i]) == 0)
            return true;
    }
    return false;
}

/* What a frame says about the owner; 0: nothing, look at its caller. */
static int verdict_of(const void *address)
{
    Dl_info info;
    if (dladdr(address, &info) == 0)
        return OWNER_OTHER;
    if (is_of_hoop(&info))
        return OWNER_HOOP;
    if (info.dli_fbase != python_object)
        return info.dli_fbase == own_object ? 0 : OWNER_OTHER;
    if (info.dli_sname == NULL)
        return 0;
    if (strstr(info.dli_sname, "_PyEval_EvalFrame") != NULL)
        return OWNER_INTERPRETER;
    return is_of_traceback(info.dli_sname) ? OWNER_TRACEBACK : 0;
}

/* dladdr(3) takes long, and there are few addresses: an entry is one of them, shifted, with its verdict. */
static int remembered_verdict_of(uintptr_t address)
{
    static _Atomic uintptr_t known[KNOWN_ADDRESSES];
    _Atomic uintptr_t *entry = &known[(address ^ address >> 12) % KNOWN_ADDRESSES];
    uintptr_t value = atomic_load_explicit(entry, memory_order_relaxed);
    if (value >> VERDICT_BITS != address) {
        value = address << VERDICT_BITS | (uintptr_t)verdict_of((const void *)address);
        atomic_store_explicit(entry, value, memory_order_relaxed);
    }
    return (int)(value & ((1 << VERDICT_BITS) - 1));
}

static _Unwind_Reason_Code look_at(struct _Unwind_Context *context, void *verdict)
{
    uintptr_t address = _Unwind_GetIP(context);
    *(int *)verdict = address == 0 ? OWNER_OTHER : remembered_verdict_of(address - 1); /* in the call, not behind it */
    return *(int *)verdict == 0 ? _URC_NO_REASON : _URC_NORMAL_STOP;
}

static int owner_of_this(void)
{
    int verdict = 0;
    (void)_Unwind_Backtrace(look_at, &verdict);
    return verdict == 0 ? OWNER_OTHER : verdict;
}

static bool fails(void)
{
    static _Thread_local bool is_inside;
    if (!atomic_load_explicit(&is_counting, memory_order_relaxed) || atomic_load(&is_paused) || is_inside)
        return false;
    is_inside = true;
    bool is_chosen = false;
    if ((owner_of_this() & atomic_load(&owners)) != 0) {
        long number = atomic_fetch_add(&made, 1) + 1;
        is_chosen = number >= atomic_load(&first_failing) && number < atomic_load(&first_good);
    }
    if (is_chosen && getenv("SHOW_FAILED_ALLOCATIONS") != NULL) {
        void *frames[MOST_FRAMES];
        backtrace_symbols_fd(frames, backtrace(frames, MOST_FRAMES), STDERR_FILENO);
    }
    is_inside = false;
    return is_chosen;
}

/* ---- Python's ---------------------------------------------------------------------------------------------------- */

static void *python_malloc(void *context, size_t size)
{
    const allocator *own = context;
    return fails() ? NULL : own->malloc(own->context, size);
}

static void *python_calloc(void *context, size_t count, size_t size)
{
    const allocator *own = context;
    return fails() ? NULL : own->calloc(own->context, count, size);
}

static void *python_realloc(void *context, void *block, size_t size)
{
    const allocator *own = context;
    return fails() ? NULL : own->realloc(own->context, block, size);
}

static void python_free(void *context, void *block)
{
    const allocator *own = context;
    own->free(own->context, block);
}

static void hook_python(void)
{
    exchange_allocator get = (exchange_allocator)dlsym(RTLD_DEFAULT, "PyMem_GetAllocator");
    exchange_allocator set = (exchange_allocator)dlsym(RTLD_DEFAULT, "PyMem_SetAllocator");
    if (get == NULL || set == NULL)
        abort();
    for (int domain = 0; domain < DOMAINS; domain++) {
        if (former[domain].malloc != NULL)
            continue;
        get(domain, &former[domain]);
        allocator own = {&former[domain], python_malloc, python_calloc, python_realloc, python_free};
        set(domain, &own);
    }
}

/* ---- hoop's C code ----------------------------------------------------------------------------------------------- */

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *block, size_t size);

static bool fails_for(const void *caller)
{
    Dl_info info;
    return atomic_load_explicit(&is_counting, memory_order_relaxed) && dladdr(caller, &info) != 0 &&
           is_of_hoop(&info) && fails();
}

void *malloc(size_t size)
{
    return fails_for(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return fails_for(__builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *block, size_t size)
{
    return fails_for(__builtin_return_address(0)) ? NULL : __libc_realloc(block, size);
}

/* ---- for the program --------------------------------------------------------------------------------------------- */

void fail_allocations(long first, long last, int whose)
{
    void *frames[MOST_FRAMES];
    (void)backtrace(frames, MOST_FRAMES); /* the first one allocates */
    python_object = object_of(dlsym(RTLD_DEFAULT, "PyMem_SetAllocator"));
    own_object = object_of((const void *)fail_allocations);
    hook_python();
    atomic_store(&owners, whose);
    atomic_store(&made, 0);
    atomic_store(&first_failing, first);
    atomic_store(&first_good, last);
    atomic_store(&is_counting, true);
}

long allocations_made(void)
{
    return atomic_load(&made);
}

void pause_failing(int yes)
{
    atomic_store(&is_paused, yes != 0);
}

void stop_failing(void)
{
    atomic_store(&is_counting, false);
}
