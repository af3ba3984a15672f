/* openssl.h: reading and writing of a TLS connection that Python's ssl module has made, by the same OpenSSL.
 *
 * No header of OpenSSL is needed, nor linking with it: the functions come from the library that _ssl itself has loaded.
 * Any doubt about it is a refusal; then the caller leaves the connection to _ssl.
 *
 * A connection (SSL *) keeps its owner in Python, its context and its state. What changes is where its bytes come from
 * and go to: a channel in place of two of OpenSSL's memory buffers. _ssl's own methods work on it as before; they may
 * let go of the GIL, so the channel knows nothing of Python. */
#ifndef HOOP_OPENSSL_H
#define HOOP_OPENSSL_H

#include <stdbool.h>
#include <stddef.h>

typedef enum hoop_openssl_state {
    HOOP_OPENSSL_READY,
    HOOP_OPENSSL_NOT_SHARED,    /* the module is no shared object that is loaded */
    HOOP_OPENSSL_STATIC,        /* the module, or the program, has OpenSSL inside */
    HOOP_OPENSSL_INCOMPLETE,    /* a function is missing */
    HOOP_OPENSSL_DIVIDED,       /* the program has another one, to which the module may be bound */
    HOOP_OPENSSL_OUT_OF_MEMORY, /* or something else that keeps OpenSSL from registering the channel */
} hoop_openssl_state;

/* The two ends of a connection's ciphertext. All zero: nothing came, nothing is to go. */
typedef struct hoop_tls_channel {
    const char *in; /* from the peer: what OpenSSL has not taken yet. The caller's */
    size_t in_size;
    char *room; /* for the peer: goes here first. The caller's, or NULL */
    size_t room_size;
    size_t room_used;
    char *spill; /* what found no room there, behind it */
    size_t spill_size;
    size_t spill_capacity;
    bool is_dry;           /* OpenSSL wanted more than there was in `in` */
    bool is_out_of_memory; /* spill could not grow */
} hoop_tls_channel;

/* Find OpenSSL's functions. To be called once, before all else and by one thread. The path is the module's file. */
hoop_openssl_state hoop_openssl_find(const char *module_path);
unsigned long hoop_openssl_version(void); /* OPENSSL_VERSION_NUMBER */

/* Whether ssl is a connection of this owner in Python, of that SSL_CTX, between these two BIOs. ssl may point anywhere:
 * its memory is looked at in a way that cannot fault, and OpenSSL is asked only if all three are found there. */
bool hoop_openssl_is_connection(void *ssl, const void *owner, const void *context, const void *in, const void *out);

/* Put a channel under a connection, which must stay where it is until hoop_tls_detach. Returns the BIO or NULL. */
void *hoop_tls_attach(void *ssl, hoop_tls_channel *channel);
void hoop_tls_detach(void *bio, hoop_tls_channel *channel); /* the connection may live on, cut off */

/* Decrypt into buffer, encrypt from data. Return the number of bytes, > 0; 0 when OpenSSL wants more from the peer;
 * -EPROTO for all else, which _ssl's own method tells if it is called next; -ENOMEM. */
ptrdiff_t hoop_tls_read(void *ssl, hoop_tls_channel *channel, char *buffer, size_t size);
ptrdiff_t hoop_tls_write(void *ssl, hoop_tls_channel *channel, const char *data, size_t size);
bool hoop_tls_is_within_record(void *ssl);  /* OpenSSL has taken the beginning of a record, or of its plaintext */
size_t hoop_tls_decrypted(const void *ssl); /* bytes of plaintext that hoop_tls_read has not given out */

#endif
