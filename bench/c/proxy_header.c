/* What the parser of PROXY headers costs: for each kind of header the nanoseconds in which its size is told and it is
 * parsed, as the listener does with the first bytes of a connection. Prints one line of JSON.
 *
 *   proxy_header [SECONDS]     of each window, 0.2; the best of five counts */
#include "../../csrc/proxy_header.h"
#include "clocks.h"

#include <stdio.h>
#include <string.h>

#define WINDOWS 5
#define BATCH 10000
#define BOTH (HOOP_PROXY_V1 | HOOP_PROXY_V2)

static const char v1[] = "PROXY TCP4 203.0.113.7 198.51.100.1 54321 443\r\n";
static const char v1_ipv6[] = "PROXY TCP6 2001:db8:1234:5678:9abc:def0:1234:5678 2001:db8::1 54321 443\r\n";
#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define INET "\xcb\x00\x71\x07\xc6\x33\x64\x01\xd4\x31\x01\xbb"
static const char v2[] = SIGNATURE "\x21\x11\x00\x0c" INET;
static const char v2_local[] = SIGNATURE "\x20\x00\x00\x00";
/* As HAProxy sends it of a TLS connection: authority, unique id, TLS with version and cipher. */
static const char v2_tlvs[] = SIGNATURE "\x21\x11\x00\x5a" INET "\x02\x00\x0b"
                                        "example.org"
                                        "\x05\x00\x10"
                                        "0123456789abcdef"
                                        "\x20\x00\x2a\x01\x00\x00\x00\x00"
                                        "\x21\x00\x07"
                                        "TLSv1.3"
                                        "\x23\x00\x18"
                                        "TLS_AES_256_GCM_SHA384AB";

static double nanoseconds_of(const char *data, size_t size, int64_t window_ns)
{
    double best = -1;
    for (int window = 0; window < WINDOWS; window++) {
        int64_t begun = monotonic_ns(), now = begun;
        long calls = 0;
        while (now - begun < window_ns) {
            for (int i = 0; i < BATCH; i++) {
                hoop_proxy_header header;
                ssize_t told = hoop_proxy_header_size((const uint8_t *)data, size, BOTH);
                if (told != (ssize_t)size || hoop_proxy_header_parse((const uint8_t *)data, size, &header) != 0)
                    return -1;
                __asm__ volatile("" : : "g"(&header) : "memory"); /* the compiler must not drop it */
            }
            calls += BATCH;
            now = monotonic_ns();
        }
        double each = (double)(now - begun) / (double)calls;
        best = best < 0 || each < best ? each : best;
    }
    return best;
}

int main(int count, char **arguments)
{
    double seconds = count > 1 ? strtod(arguments[1], NULL) : 0.2;
    const struct {
        const char *name, *data;
        size_t size;
    } headers[] = {
        {"v1", v1, sizeof v1 - 1},
        {"v1-ipv6", v1_ipv6, sizeof v1_ipv6 - 1},
        {"v2", v2, sizeof v2 - 1},
        {"v2-local", v2_local, sizeof v2_local - 1},
        {"v2-tlvs", v2_tlvs, sizeof v2_tlvs - 1},
    };
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        double each = nanoseconds_of(headers[i].data, headers[i].size, seconds_to_ns(seconds));
        if (each < 0) {
            fprintf(stderr, "proxy_header: %s is no header\n", headers[i].name);
            return 1;
        }
        printf("%s\"%s\": %.1f", i == 0 ? "{" : ", ", headers[i].name, each);
    }
    puts("}");
    return 0;
}
