/* Random headers through the checks of the fuzzer: well formed ones, and the same with bytes changed, cut and doubled. */
#include "check.h"
#include "fuzz_proxy_header.c"

enum {
    ROUNDS = 60000,
    LARGEST = 600,
};

static const char *const lines[] = {
    "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET / HTTP/1.1\r\n",
    "PROXY TCP6 2001:db8::1 ::ffff:10.0.0.1 1 65535\r\n",
    "PROXY UNKNOWN\r\n",
    "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
};

static size_t add_tlv(uint64_t *state, uint8_t *at, int depth)
{
    static const uint8_t types[] = {0x01, 0x02, 0x03, 0x04, 0x05, HOOP_PROXY_TLV_SSL, 0x30, 0xea};
    size_t size = 3, wanted = (size_t)check_random_below(state, 12);
    at[0] = types[check_random_below(state, sizeof(types))];
    if (at[0] == HOOP_PROXY_TLV_SSL) {
        for (int index = 0; index < HOOP_PROXY_SSL_FIXED; index++)
            at[size++] = (uint8_t)check_random(state);
        for (size_t count = depth > 1 ? 0 : wanted / 3; count > 0; count--)
            size += add_tlv(state, at + size, depth + 1);
    } else {
        size += at[0] == HOOP_PROXY_TLV_CRC32C ? 4 : wanted;
    }
    at[1] = (uint8_t)((size - 3) >> 8);
    at[2] = (uint8_t)(size - 3);
    return size;
}

static size_t make_binary(uint64_t *state, uint8_t *data)
{
    static const uint8_t protocols[] = {0x11, 0x21, 0x31, 0x00, 0x12, 0x20};
    static const uint8_t begin[] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};
    size_t size = 16;
    memcpy(data, begin, sizeof(begin));
    data[12] = check_random_below(state, 8) == 0 ? 0x20 : 0x21;
    data[13] = protocols[check_random_below(state, sizeof(protocols))];
    size += data[13] == 0x11 ? 12 : data[13] == 0x21 ? 36 : data[13] == 0x31 ? 216 : 0;
    for (uint64_t count = check_random_below(state, 4); count > 0; count--)
        size += add_tlv(state, data + size, 0);
    data[14] = (uint8_t)((size - 16) >> 8);
    data[15] = (uint8_t)(size - 16);
    return size;
}

static void spoil(uint64_t *state, uint8_t *data, size_t *size)
{
    size_t at = *size == 0 ? 0 : (size_t)check_random_below(state, *size);
    switch (check_random_below(state, 3)) {
    case 0:
        data[at] = (uint8_t)check_random(state);
        break;
    case 1:
        *size = at;
        break;
    default:
        memmove(data + at + 1, data + at, *size - at);
        *size += 1;
    }
}

TEST(whatever_the_bytes_are_the_promises_hold)
{
    static uint8_t data[LARGEST + 64];
    uint64_t state = check_use_seed(20261129);
    for (int round = 0; round < ROUNDS; round++) {
        size_t size;
        memset(data, 0, sizeof(data));
        if (check_random_below(&state, 3) == 0) {
            const char *line = lines[check_random_below(&state, sizeof(lines) / sizeof(lines[0]))];
            size = strlen(line);
            memcpy(data, line, size);
        } else {
            size = make_binary(&state, data);
        }
        REQUIRE(size <= LARGEST);
        for (uint64_t times = check_random_below(&state, 4); times > 0; times--)
            spoil(&state, data, &size);
        CHECK_EQ(LLVMFuzzerTestOneInput(data, size), 0);
    }
}

int main(void)
{
    RUN(whatever_the_bytes_are_the_promises_hold);
    return check_finish();
}
