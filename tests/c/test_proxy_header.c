/* The parser of PROXY headers, by the traps that other parsers fell into (P1, P2, P5 and P6 of tests/unit too). */
#include "check.h"
#include "net.h"
#include "proxy_header.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/un.h>

#define BOTH (HOOP_PROXY_V1 | HOOP_PROXY_V2)
#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define IP4_BLOCK "\x0a\x00\x00\x01\x0a\x00\x00\x02\x1f\x90\x01\xbb" /* 10.0.0.1:8080 to 10.0.0.2:443 */

static int parse(const void *data, size_t size, hoop_proxy_header *header)
{
    ssize_t told = hoop_proxy_header_size(data, size, BOTH);
    if (told < 0)
        return (int)told;
    CHECK_EQ(told, size);
    return hoop_proxy_header_parse(data, size, header);
}

static int parse_line(const char *line, hoop_proxy_header *header)
{
    return parse(line, strlen(line), header);
}

/* The header made of command, protocol and the block, whose length it tells truly. */
static size_t binary(uint8_t *data, int command, int protocol, const void *block, size_t size)
{
    memcpy(data, SIGNATURE, 12);
    data[12] = (uint8_t)command;
    data[13] = (uint8_t)protocol;
    data[14] = (uint8_t)(size >> 8);
    data[15] = (uint8_t)size;
    memcpy(data + 16, block, size);
    return 16 + size;
}

static int parse_binary(int command, int protocol, const void *block, size_t size, hoop_proxy_header *header)
{
    static uint8_t data[HOOP_PROXY_LONGEST];
    return parse(data, binary(data, command, protocol, block, size), header);
}

static bool is_address(const struct sockaddr_storage *address, socklen_t length, const char *host, int port)
{
    hoop_address text;
    return hoop_net_format_address((const struct sockaddr *)address, length, &text) == 0 &&
           strcmp(text.host, host) == 0 && text.port == port;
}

TEST(lines_of_version_1)
{
    hoop_proxy_header header;
    CHECK_EQ(parse_line("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", &header), 0);
    CHECK_EQ(header.version, HOOP_PROXY_V1);
    CHECK(!header.is_local);
    CHECK(is_address(&header.source, header.source_length, "192.168.0.1", 56324));
    CHECK(is_address(&header.destination, header.destination_length, "192.168.0.11", 443));
    CHECK_EQ(header.tlvs_size, 0);
    CHECK_EQ(parse_line("PROXY TCP6 2001:DB8::1 ::ffff:1.2.3.4 0 65535\r\n", &header), 0);
    CHECK(is_address(&header.source, header.source_length, "2001:db8::1", 0));
    CHECK(is_address(&header.destination, header.destination_length, "::ffff:1.2.3.4", 65535));
}

TEST(p1_unknown_has_no_addresses)
{
    hoop_proxy_header header;
    CHECK_EQ(parse_line("PROXY UNKNOWN\r\n", &header), 0);
    CHECK_EQ(header.source_length, 0);
    CHECK_EQ(parse_line("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", &header), 0);
    CHECK_EQ(header.source_length, 0);
    CHECK_EQ(parse_line("PROXY UNKNOWNS\r\n", &header), -EBADMSG);
}

TEST(p5_lines_that_are_none)
{
    static const char *const bad[] = {
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 \r\n",
        "PROXY TCP5 1.2.3.4 1.2.3.4 1 1\r\n",
        "PROXY tcp4 1.2.3.4 1.2.3.4 1 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 1 \r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 1 1\r\n",
        "PROXY TCP4  1.2.3.4 1.2.3.4 1 1\r\n",
        "PROXY TCP4\t1.2.3.4 1.2.3.4 1 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 99999\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 100000\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 +1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 -1 1\r\n",
        "PROXY TCP4 1.2.3 1.2.3.4 1 1\r\n",
        "PROXY TCP4 01.2.3.4 1.2.3.4 1 1\r\n",
        "PROXY TCP4 1.2.3.256 1.2.3.4 1 1\r\n",
        "PROXY TCP4 ::1 ::1 1 1\r\n",
        "PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n",
        "PROXY TCP6 ::1 1.2.3.4 1 1\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n",
        "PROXY TCP6 :::1 ::1 1 1\r\n",
        "PROXY TCP6 0000:0000:0000:0000:0000:0000:0000:0000:1 ::1 1 1\r\n",
        "PROXY UNKNOWN \r \r\n",
    };
    hoop_proxy_header header;
    for (size_t index = 0; index < sizeof(bad) / sizeof(bad[0]); index++)
        if (!CHECK_EQ(parse_line(bad[index], &header), -EBADMSG))
            fprintf(stderr, "it took %s", bad[index]);
    CHECK_EQ(parse("PROXY TCP4 1.2\0.3 1.2.3.4 1 1\r\n", 31, &header), -EBADMSG);
}

TEST(p5_a_line_has_107_bytes_at_most)
{
    char line[200];
    hoop_proxy_header header;
    memset(line, 'x', sizeof(line));
    memcpy(line, "PROXY UNKNOWN ", 14);
    memcpy(line + 105, "\r\n", 2);
    CHECK_EQ(parse(line, 107, &header), 0);
    line[105] = 'x';
    CHECK_EQ(hoop_proxy_header_size((uint8_t *)line, 106, BOTH), 0);
    memcpy(line + 106, "\r\n", 2);
    CHECK_EQ(hoop_proxy_header_size((uint8_t *)line, 108, BOTH), -EMSGSIZE);
    CHECK_EQ(hoop_proxy_header_size((uint8_t *)line, 107, BOTH), -EMSGSIZE);
}

TEST(addresses_of_version_2)
{
    static const char ip6[] = "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\1\0\0\x50";
    char names[216];
    const char *name;
    hoop_proxy_header header;
    CHECK_EQ(parse_binary(0x21, 0x11, IP4_BLOCK, 12, &header), 0);
    CHECK_EQ(header.version, HOOP_PROXY_V2);
    CHECK(is_address(&header.source, header.source_length, "10.0.0.1", 8080));
    CHECK(is_address(&header.destination, header.destination_length, "10.0.0.2", 443));
    CHECK_EQ(parse_binary(0x21, 0x21, ip6, 36, &header), 0);
    CHECK(is_address(&header.source, header.source_length, "2001:db8::1", 256));
    CHECK(is_address(&header.destination, header.destination_length, "::1", 80));
    memset(names, 0, sizeof(names));
    memset(names, 'n', 108); /* a path without an end */
    memcpy(names + 108, "\0abstract", 9);
    CHECK_EQ(parse_binary(0x21, 0x31, names, 216, &header), 0);
    CHECK_EQ(hoop_net_unix_name((struct sockaddr *)&header.source, header.source_length, &name), 108);
    CHECK(memcmp(name, names, 108) == 0);
    CHECK_EQ(hoop_net_unix_name((struct sockaddr *)&header.destination, header.destination_length, &name), 9);
    memset(names + 108, 0, 108);
    CHECK_EQ(parse_binary(0x21, 0x31, names, 216, &header), 0);
    CHECK_EQ(hoop_net_unix_name((struct sockaddr *)&header.destination, header.destination_length, &name), 0);
}

TEST(p1_local_is_skipped_with_its_block)
{
    hoop_proxy_header header;
    CHECK_EQ(parse_binary(0x20, 0x00, "", 0, &header), 0);
    CHECK(header.is_local);
    CHECK_EQ(parse_binary(0x20, 0x11, IP4_BLOCK "\xff\xff", 14, &header), 0);
    CHECK(header.is_local);
    CHECK_EQ(header.source_length, 0);
    CHECK_EQ(header.tlvs_size, 0);
    CHECK_EQ(parse_binary(0x20, 0xff, "whatever", 8, &header), 0);
}

TEST(p2_what_is_unspecified_and_what_is_unknown)
{
    static const int unspecified[] = {0x00, 0x01, 0x02, 0x10, 0x12, 0x20, 0x22, 0x30, 0x32};
    static const int unknown[] = {0x13, 0x1f, 0x40, 0x41, 0xf1};
    hoop_proxy_header header;
    for (size_t index = 0; index < sizeof(unspecified) / sizeof(unspecified[0]); index++) {
        CHECK_EQ(parse_binary(0x21, unspecified[index], "any", 3, &header), 0);
        CHECK(!header.is_local);
        CHECK_EQ(header.source_length, 0);
    }
    for (size_t index = 0; index < sizeof(unknown) / sizeof(unknown[0]); index++)
        CHECK_EQ(parse_binary(0x21, unknown[index], IP4_BLOCK, 12, &header), -EBADMSG);
    CHECK_EQ(parse_binary(0x11, 0x11, IP4_BLOCK, 12, &header), -EPROTONOSUPPORT);
    CHECK_EQ(parse_binary(0x31, 0x11, IP4_BLOCK, 12, &header), -EPROTONOSUPPORT);
    CHECK_EQ(parse_binary(0x22, 0x11, IP4_BLOCK, 12, &header), -EPROTONOSUPPORT);
}

TEST(p3_what_is_no_header_is_refused_at_its_first_byte)
{
    static const char *const others[] = {"GET / HTTP/1.1\r\n", "\x16\x03\x01", "PRI * HTTP/2.0\r\n", "PROXYING",
                                         "\r\n\r\r"};
    for (size_t index = 0; index < sizeof(others) / sizeof(others[0]); index++)
        CHECK_EQ(hoop_proxy_header_size((const uint8_t *)others[index], strlen(others[index]), BOTH), -EPROTO);
    CHECK_EQ(hoop_proxy_header_size((const uint8_t *)"P", 1, BOTH), 0);
    CHECK_EQ(hoop_proxy_header_size((const uint8_t *)"P", 1, HOOP_PROXY_V2), -EPROTONOSUPPORT);
    CHECK_EQ(hoop_proxy_header_size((const uint8_t *)"\r\n", 2, HOOP_PROXY_V1), -EPROTONOSUPPORT);
    CHECK_EQ(hoop_proxy_header_size((const uint8_t *)"", 0, BOTH), 0);
}

TEST(p6_lengths_that_lie)
{
    static const struct {
        const char *block;
        size_t size;
        int result;
    } cases[] = {
        {IP4_BLOCK, 11, -EBADMSG},
        {IP4_BLOCK "\x04", 13, -EBADMSG},
        {IP4_BLOCK "\x04\0", 14, -EBADMSG},
        {IP4_BLOCK "\x04\0\0", 15, 0},
        {IP4_BLOCK "\x04\0\1", 15, -EBADMSG},
        {IP4_BLOCK "\x02\0\4host\x05\0\5four", 26, -EBADMSG},
        {IP4_BLOCK "\x02\0\4host\x05\0\4four", 26, 0},
        {IP4_BLOCK "\x20\0\4\1\0\0\0", 19, -EBADMSG}, /* shorter than its fixed part */
        {IP4_BLOCK "\x20\0\5\1\0\0\0\0", 20, 0},
        {IP4_BLOCK "\x20\0\x0a\1\0\0\0\0\x21\0\2v1", 25, 0},
        {IP4_BLOCK "\x20\0\x0a\1\0\0\0\0\x21\0\3v1", 25, -EBADMSG}, /* nested, and beyond the end of the outer one */
        {IP4_BLOCK "\x20\0\x06\1\0\0\0\0\x21", 21, -EBADMSG},
    };
    hoop_proxy_header header;
    for (size_t index = 0; index < sizeof(cases) / sizeof(cases[0]); index++)
        if (!CHECK_EQ(parse_binary(0x21, 0x11, cases[index].block, cases[index].size, &header), cases[index].result))
            fprintf(stderr, "case %zu\n", index);
}

TEST(p6_the_longest_header)
{
    static uint8_t block[UINT16_MAX];
    hoop_proxy_header header;
    size_t size = UINT16_MAX - 12 - 3;
    memcpy(block, IP4_BLOCK "\x04", 13);
    block[13] = (uint8_t)(size >> 8);
    block[14] = (uint8_t)size;
    CHECK_EQ(parse_binary(0x21, 0x11, block, sizeof(block), &header), 0);
    CHECK_EQ(header.tlvs_size, size + 3);
}

TEST(p6_a_wrong_checksum)
{
    uint8_t data[64];
    hoop_proxy_header header;
    size_t size = binary(data, 0x21, 0x11, IP4_BLOCK "\x02\0\1h\x03\0\4\0\0\0\0\x04\0\0", 26);
    uint32_t sum = hoop_proxy_crc32c(0, data, size);
    CHECK_EQ(parse(data, size, &header), -EILSEQ);
    for (int index = 0; index < 4; index++)
        data[35 + index] = (uint8_t)(sum >> (24 - 8 * index));
    CHECK_EQ(parse(data, size, &header), 0);
    data[31] ^= 1; /* the h */
    CHECK_EQ(parse(data, size, &header), -EILSEQ);
    CHECK_EQ(parse_binary(0x21, 0x11, IP4_BLOCK "\x03\0\3\0\0\0", 18, &header), -EBADMSG);
    CHECK_EQ(parse_binary(0x21, 0x11, IP4_BLOCK "\x03\0\4\0\0\0\0\x03\0\4\0\0\0\0", 26, &header), -EBADMSG);
}

TEST(the_checksum_of_its_specification)
{
    uint8_t bytes[32];
    CHECK_EQ(hoop_proxy_crc32c(0, (const uint8_t *)"123456789", 9), 0xe3069283);
    memset(bytes, 0, sizeof(bytes));
    CHECK_EQ(hoop_proxy_crc32c(0, bytes, 32), 0x8a9136aa); /* RFC 3720, B.4 */
    memset(bytes, 0xff, sizeof(bytes));
    CHECK_EQ(hoop_proxy_crc32c(0, bytes, 32), 0x62a8ab43);
    CHECK_EQ(hoop_proxy_crc32c(hoop_proxy_crc32c(0, bytes, 7), bytes + 7, 25), 0x62a8ab43);
}

TEST(tlvs_come_in_their_order)
{
    hoop_proxy_header header;
    hoop_proxy_tlv tlv;
    CHECK_EQ(parse_binary(0x21, 0x11, IP4_BLOCK "\x02\0\4host\xea\0\2\1v", 24, &header), 0);
    CHECK_EQ(hoop_proxy_tlv_next(&header.tlvs, &header.tlvs_size, &tlv), 1);
    CHECK(tlv.type == 2 && tlv.size == 4 && memcmp(tlv.value, "host", 4) == 0);
    CHECK_EQ(hoop_proxy_tlv_next(&header.tlvs, &header.tlvs_size, &tlv), 1);
    CHECK(tlv.type == 0xea && tlv.size == 2);
    CHECK_EQ(hoop_proxy_tlv_next(&header.tlvs, &header.tlvs_size, &tlv), 0);
}

TEST(a_part_of_a_header_or_more_than_one_is_not_parsed)
{
    hoop_proxy_header header;
    CHECK_EQ(hoop_proxy_header_parse((const uint8_t *)"PROXY UNKNOWN\r\nx", 16, &header), -EBADMSG);
    CHECK_EQ(hoop_proxy_header_parse((const uint8_t *)"PROXY UNK", 9, &header), -EBADMSG);
    CHECK_EQ(hoop_proxy_header_parse((const uint8_t *)"", 0, &header), -EBADMSG);
}

int main(void)
{
    RUN(lines_of_version_1);
    RUN(p1_unknown_has_no_addresses);
    RUN(p5_lines_that_are_none);
    RUN(p5_a_line_has_107_bytes_at_most);
    RUN(addresses_of_version_2);
    RUN(p1_local_is_skipped_with_its_block);
    RUN(p2_what_is_unspecified_and_what_is_unknown);
    RUN(p3_what_is_no_header_is_refused_at_its_first_byte);
    RUN(p6_lengths_that_lie);
    RUN(p6_the_longest_header);
    RUN(p6_a_wrong_checksum);
    RUN(the_checksum_of_its_specification);
    RUN(tlvs_come_in_their_order);
    RUN(a_part_of_a_header_or_more_than_one_is_not_parsed);
    return check_finish();
}
