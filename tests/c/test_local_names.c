/* Which names are local, by a hosts file of the test's own. */
#include "check.h"
#include "local_names.h"

#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char hosts[] = "/tmp/hoop_hosts_XXXXXX";

static const char *const NO_FILE = "/nonexistent/hosts";

static void write_hosts(const char *text)
{
    FILE *file = fopen(hosts, "w");
    REQUIRE(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
}

static bool is_local(const char *host, int family)
{
    return hoop_name_is_local(host, family, 0, hosts);
}

TEST(numeric_forms_need_no_name_server)
{
    static const char *const numeric[] = {"127.0.0.1", "127.1",        "0x7f.1", "010.0.0.1", "1",
                                          "::1",       "fe80::1%eth0", "",       NULL};
    for (size_t i = 0; i < sizeof(numeric) / sizeof(*numeric); i++)
        CHECK(hoop_name_is_local(numeric[i], AF_UNSPEC, 0, NO_FILE));
    CHECK(!hoop_name_is_local("256.1.1.1", AF_UNSPEC, 0, NO_FILE));
    CHECK(!hoop_name_is_local("::1.example", AF_UNSPEC, 0, NO_FILE));
    CHECK(hoop_name_is_local("any.name", AF_UNSPEC, AI_NUMERICHOST, NO_FILE));
}

TEST(localhost_and_the_own_name)
{
    char own[300] = "";
    REQUIRE(gethostname(own, sizeof(own) - 1) == 0);
    CHECK(hoop_name_is_local(own, AF_UNSPEC, 0, NO_FILE));
    CHECK(hoop_name_is_local("localhost", AF_UNSPEC, 0, NO_FILE));
    CHECK(hoop_name_is_local("LocalHost.", AF_INET6, 0, NO_FILE));
    CHECK(hoop_name_is_local("db.localhost", AF_UNSPEC, 0, NO_FILE));
    CHECK(!hoop_name_is_local(".localhost", AF_UNSPEC, 0, NO_FILE));
    CHECK(!hoop_name_is_local("notlocalhost", AF_UNSPEC, 0, NO_FILE));
    CHECK(!hoop_name_is_local("localhost.example", AF_UNSPEC, 0, NO_FILE));
}

TEST(what_the_file_lists)
{
    write_hosts("# comment first\n"
                "192.0.2.1\tone.example  One uno # 192.0.2.9 commented.example\n"
                "\n   \n192.0.2.2\n"
                "2001:db8::1 six.example\r\n"
                "192.0.2.3 last.example");
    CHECK(is_local("one.example", AF_UNSPEC));
    CHECK(is_local("ONE.example.", AF_INET));
    CHECK(is_local("one", AF_INET));
    CHECK(is_local("uno", AF_INET));
    CHECK(is_local("last.example", AF_UNSPEC));
    CHECK(is_local("six.example", AF_INET6));
    CHECK(is_local("six.example", AF_UNSPEC));
    CHECK(!is_local("six.example", AF_INET)); /* libc goes on to ask the next source */
    CHECK(!is_local("one.example", AF_INET6));
    CHECK(!is_local("commented.example", AF_UNSPEC));
    CHECK(!is_local("one.exampl", AF_UNSPEC));
    CHECK(!is_local("two.example", AF_UNSPEC));
    CHECK(!hoop_name_is_local("one.example", AF_UNSPEC, 0, NO_FILE));
    CHECK(!hoop_name_is_local("one.example", AF_UNSPEC, 0, "/")); /* not a file */
}

TEST(addresses_that_the_file_lists)
{
    write_hosts("192.0.2.1 one\n2001:DB8:0::1 six\nnonsense line\n");
    CHECK(hoop_address_is_local("192.0.2.1", 0, hosts));
    CHECK(hoop_address_is_local("2001:db8::1", 0, hosts));
    CHECK(!hoop_address_is_local("192.0.2.2", 0, hosts));
    CHECK(!hoop_address_is_local("2001:db8::2", 0, hosts));
    CHECK(hoop_address_is_local("192.0.2.2", NI_NUMERICHOST, hosts));
    CHECK(hoop_address_is_local("not numeric", 0, hosts)); /* refused, by libc */
}

TEST(long_lines_and_names)
{
    enum { LINE = 100000 };
    char *line = malloc(LINE + 1);
    REQUIRE(line != NULL);
    memset(line, 'x', LINE);
    memcpy(line, "192.0.2.1 ", 10);
    memcpy(line + LINE - 12, " far.example", 12);
    line[LINE] = '\0';
    write_hosts(line);
    CHECK(is_local("far.example", AF_UNSPEC));
    line[LINE - 12] = 'x';
    CHECK(is_local(line + 10, AF_UNSPEC)); /* too long to be a name: refused, by libc */
    free(line);
}

int main(void)
{
    int fd = mkstemp(hosts);
    REQUIRE(fd >= 0 && close(fd) == 0);
    RUN(numeric_forms_need_no_name_server);
    RUN(localhost_and_the_own_name);
    RUN(what_the_file_lists);
    RUN(addresses_that_the_file_lists);
    RUN(long_lines_and_names);
    REQUIRE(unlink(hosts) == 0);
    return check_finish();
}
