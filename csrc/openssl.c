/* openssl.c: facts about OpenSSL and dynamic linking, and what they mean here.
 *
 * 1. dlsym(3) with a module's handle searches the module and what it was linked with, so it finds the library that was
 *    loaded for it, however many others there are. But the linker bound the module's own calls to the first match in
 *    the program and in what was preloaded, if there is one: then the two may differ, and we refuse.
 * 2. A symbol that lies in the module itself has been linked statically. It may be incomplete, and hidden in part.
 * 3. OpenSSL hands the callbacks of a BIO nothing but the BIO. To ask that for its data takes a function of OpenSSL's,
 *    so they stand in the one variable of this file, written once, before there is any BIO.
 * 4. A BIO that has nothing to read answers -1 and sets flags that say "try again"; else OpenSSL takes it for the end.
 * 5. SSL_want(3) tells why the latest call could not go on. SSL_get_error(3) would first look at the thread's queue of
 *    errors, which may hold somebody else's.
 * 6. After a failure SSL_read and SSL_write fail again and add nothing to that queue, so the caller's next call of
 *    _ssl finds there what we left. */
#include "openssl.h"

#include "base.h"
#include "platform.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* Of OpenSSL's headers, unchanged since 1.1.1. */
enum {
    BIO_CTRL_EOF = 2,
    BIO_CTRL_PENDING = 10,
    BIO_CTRL_FLUSH = 11,
    BIO_CTRL_WPENDING = 13,
    BIO_FLAGS_READ = 0x01,
    BIO_FLAGS_RWS = 0x07,
    BIO_FLAGS_SHOULD_RETRY = 0x08,
    BIO_TYPE_SOURCE_SINK = 0x0400,
    SSL_READING = 3,
};

enum {
    CONNECTION_SIZE = 8192, /* bytes at the beginning of a connection among which its context and BIOs stand */
    LEAST_SPILL = 1024,
};

typedef struct bio_st BIO;
typedef struct bio_method_st BIO_METHOD;

/* What is used of OpenSSL. */
static struct openssl {
    unsigned long (*OpenSSL_version_num)(void);
    int (*SSL_read_ex)(void *ssl, void *buffer, size_t size, size_t *count);
    int (*SSL_write_ex)(void *ssl, const void *data, size_t size, size_t *count);
    int (*SSL_want)(const void *ssl);
    int (*SSL_pending)(const void *ssl);
    int (*SSL_has_pending)(const void *ssl);
    void *(*SSL_get_ex_data)(const void *ssl, int index);
    void *(*SSL_get_SSL_CTX)(const void *ssl);
    BIO *(*SSL_get_rbio)(const void *ssl);
    BIO *(*SSL_get_wbio)(const void *ssl);
    void (*SSL_set_bio)(void *ssl, BIO *in, BIO *out);
    BIO *(*BIO_new)(const BIO_METHOD *method);
    int (*BIO_free)(BIO *bio);
    int (*BIO_up_ref)(BIO *bio);
    void (*BIO_set_data)(BIO *bio, void *data);
    void *(*BIO_get_data)(BIO *bio);
    void (*BIO_set_flags)(BIO *bio, int flags);
    void (*BIO_clear_flags)(BIO *bio, int flags);
    int (*BIO_get_new_index)(void);
    BIO_METHOD *(*BIO_meth_new)(int type, const char *name);
    int (*BIO_meth_set_read)(BIO_METHOD *method, int (*read)(BIO *, char *, int));
    int (*BIO_meth_set_write)(BIO_METHOD *method, int (*write)(BIO *, const char *, int));
    int (*BIO_meth_set_ctrl)(BIO_METHOD *method, long (*control)(BIO *, int, long, void *));
    BIO_METHOD *channel;
} openssl;

/* ---- the channel as a BIO ---------------------------------------------------------------------------------------- */

static int channel_read(BIO *bio, char *buffer, int size)
{
    hoop_tls_channel *channel = openssl.BIO_get_data(bio);
    size_t count;
    openssl.BIO_clear_flags(bio, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY);
    if (channel == NULL || channel->in_size == 0) {
        if (channel != NULL)
            channel->is_dry = true;
        openssl.BIO_set_flags(bio, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY);
        return -1;
    }
    count = channel->in_size < (size_t)size ? channel->in_size : (size_t)size;
    memcpy(buffer, channel->in, count);
    channel->in += count;
    channel->in_size -= count;
    return (int)count;
}

static bool grow_spill(hoop_tls_channel *channel, size_t needed)
{
    size_t capacity = channel->spill_capacity > 0 ? channel->spill_capacity : LEAST_SPILL;
    char *grown;
    while (capacity < needed)
        capacity *= 2;
    grown = realloc(channel->spill, capacity);
    if (grown == NULL)
        return false;
    channel->spill = grown;
    channel->spill_capacity = capacity;
    return true;
}

static int channel_write(BIO *bio, const char *data, int length)
{
    hoop_tls_channel *channel = openssl.BIO_get_data(bio);
    size_t size = (size_t)length;
    openssl.BIO_clear_flags(bio, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY);
    if (channel == NULL)
        return length; /* nobody sends it any more */
    if (channel->spill_size == 0 && channel->room_size - channel->room_used >= size) {
        memcpy(channel->room + channel->room_used, data, size);
        channel->room_used += size;
        return length;
    }
    if (channel->spill_capacity - channel->spill_size < size && !grow_spill(channel, channel->spill_size + size)) {
        channel->is_out_of_memory = true;
        return -1;
    }
    memcpy(channel->spill + channel->spill_size, data, size);
    channel->spill_size += size;
    return length;
}

static long channel_control(BIO *bio, int command, long number, void *argument)
{
    const hoop_tls_channel *channel = openssl.BIO_get_data(bio);
    (void)number;
    (void)argument;
    switch (command) {
    case BIO_CTRL_FLUSH:
        return 1;
    case BIO_CTRL_EOF:
        return channel == NULL || channel->in_size == 0;
    case BIO_CTRL_PENDING:
        return channel == NULL ? 0 : (long)channel->in_size;
    case BIO_CTRL_WPENDING:
        return channel == NULL ? 0 : (long)(channel->room_used + channel->spill_size);
    default:
        return 0;
    }
}

static bool register_channel(void)
{
    int index = openssl.BIO_get_new_index();
    BIO_METHOD *method = index < 0 ? NULL : openssl.BIO_meth_new(index | BIO_TYPE_SOURCE_SINK, "hoop");
    if (method == NULL || !openssl.BIO_meth_set_read(method, channel_read) ||
        !openssl.BIO_meth_set_write(method, channel_write) || !openssl.BIO_meth_set_ctrl(method, channel_control))
        return false;
    openssl.channel = method;
    return true;
}

/* ---- finding OpenSSL --------------------------------------------------------------------------------------------- */

static const void *object_of(const void *address) /* the shared object in which it lies, or NULL */
{
    Dl_info info;
    return dladdr(address, &info) != 0 ? info.dli_fbase : NULL;
}

/* Find one function (fact 1), of a library other than the module. */
static hoop_openssl_state find(void *handle, const void *module, const char *name, void *function)
{
    void *found = dlsym(handle, name);
    void *elsewhere = dlsym(RTLD_DEFAULT, name);
    const void *library;
    if (found == NULL)
        return HOOP_OPENSSL_INCOMPLETE;
    library = object_of(found);
    if (library == NULL || library == module)
        return HOOP_OPENSSL_STATIC;
    if (elsewhere != NULL && elsewhere != found)
        return HOOP_OPENSSL_DIVIDED;
    memcpy(function, &found, sizeof(found)); /* ISO C has no conversion from void * to a function's address */
    return HOOP_OPENSSL_READY;
}

static hoop_openssl_state find_all(void *handle, const void *module)
{
    const struct {
        const char *name;
        void *function;
    } wanted[] = {
#define WANTED(name) {#name, &openssl.name}
        WANTED(OpenSSL_version_num),
        WANTED(SSL_read_ex),
        WANTED(SSL_write_ex),
        WANTED(SSL_want),
        WANTED(SSL_pending),
        WANTED(SSL_has_pending),
        WANTED(SSL_get_ex_data),
        WANTED(SSL_get_SSL_CTX),
        WANTED(SSL_get_rbio),
        WANTED(SSL_get_wbio),
        WANTED(SSL_set_bio),
        WANTED(BIO_new),
        WANTED(BIO_free),
        WANTED(BIO_up_ref),
        WANTED(BIO_set_data),
        WANTED(BIO_get_data),
        WANTED(BIO_set_flags),
        WANTED(BIO_clear_flags),
        WANTED(BIO_get_new_index),
        WANTED(BIO_meth_new),
        WANTED(BIO_meth_set_read),
        WANTED(BIO_meth_set_write),
        WANTED(BIO_meth_set_ctrl),
#undef WANTED
    };
    size_t i;
    for (i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        hoop_openssl_state state = find(handle, module, wanted[i].name, wanted[i].function);
        if (state != HOOP_OPENSSL_READY)
            return state;
    }
    return HOOP_OPENSSL_READY;
}

hoop_openssl_state hoop_openssl_find(const char *module_path)
{
    void *handle = dlopen(module_path, RTLD_LAZY | RTLD_LOCAL | RTLD_NOLOAD);
    void *initializer = handle == NULL ? NULL : dlsym(handle, "PyInit__ssl");
    hoop_openssl_state state;
    if (initializer == NULL || object_of(initializer) == NULL) {
        if (handle != NULL)
            dlclose(handle);
        return HOOP_OPENSSL_NOT_SHARED;
    }
    state = find_all(handle, object_of(initializer));
    if (state == HOOP_OPENSSL_READY && !register_channel())
        state = HOOP_OPENSSL_OUT_OF_MEMORY;
    if (state != HOOP_OPENSSL_READY)
        dlclose(handle); /* else it is kept: OpenSSL stays as long as we do */
    return state;
}

unsigned long hoop_openssl_version(void)
{
    return openssl.OpenSSL_version_num();
}

/* ---- a connection ------------------------------------------------------------------------------------------------ */

/* Copy size bytes from any address whatever. Returns how many could be read. */
static size_t peek(const void *address, void *copy, size_t size)
{
#if HOOP_HAVE_PROCESS_VM_READV
    struct iovec from = {(void *)(uintptr_t)address, size};
    struct iovec to = {copy, size};
    ssize_t count = process_vm_readv(getpid(), &to, 1, &from, 1, 0);
    return count < 0 ? 0 : (size_t)count;
#else
    (void)address;
    (void)copy;
    (void)size;
    return 0;
#endif
}

bool hoop_openssl_is_connection(void *ssl, const void *owner, const void *context, const void *in, const void *out)
{
    const void *memory[CONNECTION_SIZE / sizeof(void *)];
    bool has_context = false, has_in = false, has_out = false;
    size_t count, i;
    if (ssl == NULL || (uintptr_t)ssl % sizeof(void *) != 0)
        return false;
    count = peek(ssl, memory, sizeof(memory)) / sizeof(void *);
    for (i = 0; i < count && !(has_context && has_in && has_out); i++) {
        has_context = has_context || memory[i] == context;
        has_in = has_in || memory[i] == in;
        has_out = has_out || memory[i] == out;
    }
    return has_context && has_in && has_out && openssl.SSL_get_SSL_CTX(ssl) == context &&
           openssl.SSL_get_rbio(ssl) == in && openssl.SSL_get_wbio(ssl) == out &&
           openssl.SSL_get_ex_data(ssl, 0) == owner;
}

void *hoop_tls_attach(void *ssl, hoop_tls_channel *channel)
{
    BIO *bio = openssl.BIO_new(openssl.channel);
    if (bio == NULL)
        return NULL;
    openssl.BIO_set_data(bio, channel);
    openssl.BIO_up_ref(bio); /* one for us, and one for both directions of the connection */
    openssl.SSL_set_bio(ssl, bio, bio);
    return bio;
}

void hoop_tls_detach(void *bio, hoop_tls_channel *channel)
{
    openssl.BIO_set_data(bio, NULL);
    openssl.BIO_free(bio);
    free(channel->spill);
    memset(channel, 0, sizeof(*channel));
}

/* What a failed call means (fact 5). */
static ptrdiff_t outcome(void *ssl, const hoop_tls_channel *channel)
{
    if (channel->is_out_of_memory)
        return -ENOMEM;
    return channel->is_dry && openssl.SSL_want(ssl) == SSL_READING ? 0 : -EPROTO;
}

ptrdiff_t hoop_tls_read(void *ssl, hoop_tls_channel *channel, char *buffer, size_t size)
{
    size_t count = 0;
    channel->is_dry = false;
    if (openssl.SSL_read_ex(ssl, buffer, size, &count) == 1)
        return (ptrdiff_t)count;
    return outcome(ssl, channel);
}

ptrdiff_t hoop_tls_write(void *ssl, hoop_tls_channel *channel, const char *data, size_t size)
{
    size_t count = 0;
    channel->is_dry = false;
    if (openssl.SSL_write_ex(ssl, data, size, &count) == 1)
        return (ptrdiff_t)count;
    return outcome(ssl, channel);
}

bool hoop_tls_is_within_record(void *ssl)
{
    return openssl.SSL_has_pending(ssl) == 1;
}

size_t hoop_tls_decrypted(const void *ssl)
{
    int count = openssl.SSL_pending(ssl);
    return count > 0 ? (size_t)count : 0;
}
