/* What must hold of the parser of PROXY headers whatever the bytes are; ends the process where it does not. libFuzzer
 * calls it (make fuzz), and so does test_proxy_header_random.c, where there is no clang. */
#include "proxy_header.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Bytes of its own, so that a sanitizer sees a read behind the last. */
static uint8_t *exact_copy(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size > 0 ? size : 1);
    HOOP_ASSERT(copy != NULL);
    memcpy(copy, data, size);
    return copy;
}

static void walk(const uint8_t *rest, size_t size, bool may_fail)
{
    hoop_proxy_tlv tlv;
    int result;
    size_t before = size;
    while ((result = hoop_proxy_tlv_next(&rest, &size, &tlv)) > 0) {
        HOOP_ASSERT(before == size + 3 + tlv.size && tlv.value + tlv.size == rest);
        before = size;
        if (tlv.type == HOOP_PROXY_TLV_SSL && !may_fail) {
            HOOP_ASSERT(tlv.size >= HOOP_PROXY_SSL_FIXED);
            walk(tlv.value + HOOP_PROXY_SSL_FIXED, tlv.size - HOOP_PROXY_SSL_FIXED, true);
        }
    }
    HOOP_ASSERT(result == 0 || (may_fail && result == -EBADMSG));
}

static void check_parsed(const uint8_t *data, size_t size)
{
    hoop_proxy_header header;
    int result = hoop_proxy_header_parse(data, size, &header);
    if (result < 0) {
        HOOP_ASSERT(result == -EBADMSG || result == -EILSEQ);
        return;
    }
    HOOP_ASSERT(header.version == HOOP_PROXY_V1 || header.version == HOOP_PROXY_V2);
    HOOP_ASSERT((header.source_length == 0) == (header.destination_length == 0));
    HOOP_ASSERT(header.source_length == 0 || header.source.ss_family == header.destination.ss_family);
    HOOP_ASSERT(!header.is_local || (header.source_length == 0 && header.tlvs_size == 0));
    HOOP_ASSERT(header.tlvs_size == 0 || header.tlvs + header.tlvs_size == data + size);
    walk(header.tlvs, header.tlvs_size, false);
}

/* What few bytes say, more bytes must not unsay. */
static void check_prefixes(const uint8_t *data, size_t size, ssize_t told)
{
    for (size_t some = 0; some <= size && some < 120; some++) {
        uint8_t *prefix = exact_copy(data, some);
        ssize_t early = hoop_proxy_header_size(prefix, some, HOOP_PROXY_V1 | HOOP_PROXY_V2);
        HOOP_ASSERT(early == 0 || early == told);
        HOOP_ASSERT(early != 0 || told <= 0 || some < (size_t)told);
        free(prefix);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = exact_copy(data, size);
    ssize_t told = hoop_proxy_header_size(copy, size, HOOP_PROXY_V1 | HOOP_PROXY_V2);
    ssize_t narrow = hoop_proxy_header_size(copy, size, HOOP_PROXY_V2);
    HOOP_ASSERT(told <= HOOP_PROXY_LONGEST);
    HOOP_ASSERT(narrow == told || (narrow == -EPROTONOSUPPORT && copy[0] == 'P'));
    check_prefixes(copy, size, told);
    if (told > 0 && (size_t)told <= size) {
        uint8_t *header = exact_copy(copy, (size_t)told);
        check_parsed(header, (size_t)told);
        free(header);
    }
    free(copy);
    return 0;
}
