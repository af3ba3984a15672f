/* platform.h: what the system has. Only this file asks which platform it is compiled for; the other files ask for what
 * they need. Each HOOP_HAVE_ is 1 or 0, and a test may define it beforehand, to build what another system runs. */
#ifndef HOOP_PLATFORM_H
#define HOOP_PLATFORM_H

#if defined(__linux__)
#define HOOP_ON_LINUX 1
#else
#define HOOP_ON_LINUX 0
#endif

#if defined(__APPLE__)
#define HOOP_ON_MACOS 1
#else
#define HOOP_ON_MACOS 0
#endif

#if defined(__FreeBSD__)
#define HOOP_ON_FREEBSD 1
#else
#define HOOP_ON_FREEBSD 0
#endif

#if defined(__NetBSD__)
#define HOOP_ON_NETBSD 1
#else
#define HOOP_ON_NETBSD 0
#endif

#if defined(__OpenBSD__)
#define HOOP_ON_OPENBSD 1
#else
#define HOOP_ON_OPENBSD 0
#endif

#if defined(__DragonFly__)
#define HOOP_ON_DRAGONFLY 1
#else
#define HOOP_ON_DRAGONFLY 0
#endif

#define HOOP_ON_BSD (HOOP_ON_FREEBSD || HOOP_ON_NETBSD || HOOP_ON_OPENBSD || HOOP_ON_DRAGONFLY)

/* ---- polling ----------------------------------------------------------------------------------------------------- */

#ifndef HOOP_HAVE_EPOLL /* epoll(7), with what poller_epoll.c says of it */
#define HOOP_HAVE_EPOLL HOOP_ON_LINUX
#endif

#ifndef HOOP_HAVE_KQUEUE /* kqueue(2) */
#define HOOP_HAVE_KQUEUE (HOOP_ON_MACOS || HOOP_ON_BSD)
#endif

#ifndef HOOP_HAVE_PPOLL /* ppoll(2) */
#define HOOP_HAVE_PPOLL (HOOP_ON_LINUX || HOOP_ON_BSD)
#endif

#ifndef HOOP_HAVE_EVENTFD /* eventfd(2) */
#define HOOP_HAVE_EVENTFD HOOP_ON_LINUX
#endif

/* ---- descriptors and sockets ------------------------------------------------------------------------------------- */

#ifndef HOOP_HAVE_PIPE2 /* pipe2(2) */
#define HOOP_HAVE_PIPE2 (!HOOP_ON_MACOS)
#endif

#ifndef HOOP_HAVE_ACCEPT4 /* accept4(2) */
#define HOOP_HAVE_ACCEPT4 (!HOOP_ON_MACOS)
#endif

#ifndef HOOP_HAVE_MMSG /* recvmmsg(2) and sendmmsg(2) as system calls; FreeBSD's and NetBSD's are not used */
#define HOOP_HAVE_MMSG HOOP_ON_LINUX
#endif

#ifndef HOOP_HAVE_UDP_SEGMENT /* the kernel makes datagrams of one buffer (udp(7)); older Linux is asked at run time */
#define HOOP_HAVE_UDP_SEGMENT HOOP_ON_LINUX
#endif

#ifndef HOOP_HAVE_IO_URING /* io_uring(7); older kernels are asked at run time */
#define HOOP_HAVE_IO_URING HOOP_ON_LINUX
#endif

#ifndef HOOP_HAVE_SIOCOUTQ /* how many bytes of a TCP connection its peer has not acknowledged (tcp(7)) */
#define HOOP_HAVE_SIOCOUTQ HOOP_ON_LINUX
#endif

#ifndef HOOP_HAVE_ABSTRACT_NAMES /* names of UNIX sockets that begin with a NUL and are no paths */
#define HOOP_HAVE_ABSTRACT_NAMES HOOP_ON_LINUX
#endif

/* ---- memory ------------------------------------------------------------------------------------------------------ */

#ifndef HOOP_HAVE_PROCESS_VM_READV /* process_vm_readv(2): a read that fails where a plain one would fault */
#define HOOP_HAVE_PROCESS_VM_READV HOOP_ON_LINUX
#endif

#ifndef HOOP_HAVE_MEMFD /* memfd_create(2): memory that a descriptor names; FreeBSD's is not used */
#define HOOP_HAVE_MEMFD HOOP_ON_LINUX
#endif

/* ---- files ------------------------------------------------------------------------------------------------------- */

#ifndef HOOP_HAVE_COPY_IN_KERNEL /* copy_file_range(2), and sendfile(2) from file to file */
#define HOOP_HAVE_COPY_IN_KERNEL HOOP_ON_LINUX
#endif

#ifndef HOOP_HAVE_NOWAIT_READS /* openat2(2), statx(2) and preadv2(2), with what fs_cached.c says of them */
#define HOOP_HAVE_NOWAIT_READS HOOP_ON_LINUX
#endif

#ifndef HOOP_HAVE_ST_TIMESPEC /* the times of struct stat are called st_atimespec, and not st_atim as in POSIX */
#define HOOP_HAVE_ST_TIMESPEC (HOOP_ON_MACOS || HOOP_ON_NETBSD)
#endif

#ifndef HOOP_HAVE_ST_BIRTH /* struct stat has the time of birth, st_birthtimespec or st_birthtim */
#define HOOP_HAVE_ST_BIRTH (HOOP_ON_MACOS || HOOP_ON_NETBSD || HOOP_ON_FREEBSD)
#endif

#ifndef HOOP_HAVE_ST_FLAGS /* struct stat has st_flags and st_gen */
#define HOOP_HAVE_ST_FLAGS (HOOP_ON_MACOS || HOOP_ON_NETBSD || HOOP_ON_FREEBSD || HOOP_ON_OPENBSD)
#endif

#endif
