# csrc.pxd: the only declarations of csrc for Cython. Comments are in the headers.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    struct sockaddr:
        unsigned short sa_family
        char sa_data[14]
    struct sockaddr_storage:
        unsigned short ss_family
    int getpeername(int fd, sockaddr *address, socklen_t *length) noexcept
    int getsockname(int fd, sockaddr *address, socklen_t *length) noexcept
    int AF_INET, AF_INET6, AF_UNIX, AF_UNSPEC

cdef extern from "<netinet/in.h>" nogil:
    struct in6_addr:
        unsigned char s6_addr[16]
    struct in_addr:
        uint32_t s_addr
    struct sockaddr_in:
        unsigned short sin_family
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        unsigned short sin6_family
        uint32_t sin6_flowinfo
        in6_addr sin6_addr
        uint32_t sin6_scope_id

cdef extern from "<arpa/inet.h>" nogil:
    uint32_t htonl(uint32_t number) noexcept

cdef extern from "<netdb.h>" nogil:
    const char *gai_strerror(int code) noexcept
    int AI_NUMERICHOST, AI_NUMERICSERV, AI_PASSIVE, EAI_SYSTEM

ctypedef int (*hoop_visit_fn)(void *item, void *arg) noexcept

cdef extern from "allocator.h" nogil:
    void hoop_allocator_expect_large_blocks() noexcept

cdef extern from "clock.h" nogil:
    int64_t HOOP_CLOCK_TICK_NS
    int64_t hoop_clock_ns() noexcept
    int64_t hoop_clock_tick_ns() noexcept

cdef extern from "ring.h" nogil:
    ctypedef struct hoop_ring:
        void **items
        uint32_t capacity
        uint32_t head
        uint32_t tail
    void hoop_ring_init(hoop_ring *ring) noexcept
    void hoop_ring_free(hoop_ring *ring) noexcept
    int hoop_ring_grow(hoop_ring *ring) noexcept
    int hoop_ring_visit(const hoop_ring *ring, hoop_visit_fn visit, void *arg) noexcept
    size_t hoop_ring_size(const hoop_ring *ring) noexcept
    int hoop_ring_push(hoop_ring *ring, void *item) noexcept
    void *hoop_ring_pop(hoop_ring *ring) noexcept

cdef extern from "timers.h" nogil:
    ctypedef struct hoop_timer:
        bint is_unreferenced
    ctypedef struct hoop_timer_entry:
        hoop_timer *timer
    ctypedef struct hoop_timers:
        hoop_timer_entry *entries
        size_t size
    void hoop_timer_init(hoop_timer *timer) noexcept
    void hoop_timers_init(hoop_timers *timers) noexcept
    void hoop_timers_free(hoop_timers *timers) noexcept
    int hoop_timers_add(hoop_timers *timers, hoop_timer *timer, int64_t deadline_ns) noexcept
    int hoop_timers_remove(hoop_timers *timers, hoop_timer *timer) noexcept
    void hoop_timers_set_referenced(hoop_timers *timers, hoop_timer *timer, bint is_referenced) noexcept
    size_t hoop_timers_referenced(const hoop_timers *timers) noexcept
    hoop_timer *hoop_timers_pop_due(hoop_timers *timers, int64_t now_ns) noexcept
    size_t hoop_timers_all_due(const hoop_timers *timers, int64_t now_ns) noexcept
    void hoop_timers_let_go(hoop_timers *timers) noexcept
    int hoop_timers_visit(const hoop_timers *timers, hoop_visit_fn visit, void *arg) noexcept
    bint hoop_timer_is_pending(const hoop_timer *timer) noexcept
    int64_t hoop_timers_deadline_ns(const hoop_timers *timers, int64_t when_empty) noexcept

cdef extern from "expiry.h" nogil:
    ctypedef struct hoop_expiry_node:
        hoop_expiry_node *previous
        void *owner
    ctypedef struct hoop_expiry_queue:
        hoop_expiry_node ends
        int64_t timeout_ns
    void hoop_expiry_queue_init(hoop_expiry_queue *queue, int64_t timeout_ns) noexcept
    void hoop_expiry_node_init(hoop_expiry_node *node, void *owner) noexcept
    hoop_expiry_node *hoop_expiry_pop_due(hoop_expiry_queue *queue, int64_t now_ns) noexcept
    int64_t hoop_expiry_deadline_ns(const hoop_expiry_queue *queue, int64_t when_empty) noexcept
    bint hoop_expiry_is_empty(const hoop_expiry_queue *queue) noexcept
    void hoop_expiry_leave(hoop_expiry_node *node) noexcept
    void hoop_expiry_touch(hoop_expiry_queue *queue, hoop_expiry_node *node, int64_t now_ns) noexcept

cdef extern from "inbox.h" nogil:
    ctypedef struct hoop_inbox_node:
        hoop_inbox_node *next
    ctypedef struct hoop_inbox:
        pass
    void hoop_inbox_init(hoop_inbox *inbox) noexcept
    int hoop_inbox_push(hoop_inbox *inbox, hoop_inbox_node *node) noexcept
    hoop_inbox_node *hoop_inbox_take(hoop_inbox *inbox) noexcept
    bint hoop_inbox_prepare_sleep(hoop_inbox *inbox) noexcept
    void hoop_inbox_awake(hoop_inbox *inbox) noexcept
    int hoop_inbox_visit(hoop_inbox *inbox, hoop_visit_fn visit, void *arg) noexcept
    bint hoop_inbox_is_empty(hoop_inbox *inbox) noexcept

cdef extern from "waker.h" nogil:
    ctypedef struct hoop_waker:
        int read_fd
        int write_fd
    int hoop_waker_open(hoop_waker *waker) noexcept
    void hoop_waker_close(hoop_waker *waker) noexcept
    int hoop_waker_wake(const hoop_waker *waker) noexcept
    int hoop_waker_drain(const hoop_waker *waker) noexcept
    bint hoop_waker_is_counter(const hoop_waker *waker) noexcept

cdef extern from "poller.h" nogil:
    enum:
        HOOP_READABLE
        HOOP_WRITABLE
        HOOP_EXCLUSIVE
        HOOP_EDGE
        HOOP_FAILED
    ctypedef struct hoop_event:
        int fd
        uint32_t generation
        uint32_t events
        int error
    ctypedef struct hoop_poller_backend:
        const char *name
    ctypedef struct hoop_poller:
        const hoop_poller_backend *backend
        int live_count
    int hoop_poller_open(hoop_poller *poller, const char *name) noexcept
    void hoop_poller_close(hoop_poller *poller) noexcept
    bint hoop_poller_tells_edges(const hoop_poller *poller) noexcept
    int hoop_poller_add(hoop_poller *poller, int fd, unsigned interest) noexcept
    int hoop_poller_set(hoop_poller *poller, int fd, unsigned interest) noexcept
    int hoop_poller_rearm(hoop_poller *poller, int fd, unsigned interest) noexcept
    int hoop_poller_remove(hoop_poller *poller, int fd) noexcept
    void hoop_poller_forget(hoop_poller *poller, int fd) noexcept
    int hoop_poller_rebuild(hoop_poller *poller) noexcept
    int hoop_poller_wait(hoop_poller *poller, hoop_event *events, int capacity, int64_t timeout_ns) noexcept
    uint32_t hoop_poller_generation(const hoop_poller *poller, int fd) noexcept
    unsigned hoop_poller_interest(const hoop_poller *poller, int fd) noexcept
    bint hoop_poller_is_applied(const hoop_poller *poller, int fd) noexcept

cdef extern from "net.h" nogil:
    enum:
        HOOP_NET_MAX_BUFFERS
        HOOP_NET_JOINED_MOST
    ctypedef struct hoop_address:
        int family
        uint16_t port
        uint32_t flowinfo
        uint32_t scope_id
        char *host
    int hoop_net_accept(int listener_fd, sockaddr_storage *peer, socklen_t *length) noexcept
    int hoop_net_hand_on(int listener_fd) noexcept
    bint hoop_net_is_transient_accept_error(int result) noexcept
    bint hoop_net_is_resource_error(int result) noexcept
    Py_ssize_t hoop_net_pending(int fd) noexcept
    bint hoop_net_close_may_reset(int fd) noexcept
    Py_ssize_t hoop_net_recv(int fd, void *buffer, size_t size) noexcept
    Py_ssize_t hoop_net_peek(int fd, void *buffer, size_t size) noexcept
    Py_ssize_t hoop_net_send(int fd, const void *buffer, size_t size) noexcept
    Py_ssize_t hoop_net_sendv(int fd, const iovec *buffers, int count) noexcept
    Py_ssize_t hoop_net_read(int fd, void *buffer, size_t size) noexcept
    Py_ssize_t hoop_net_writev(int fd, const iovec *buffers, int count) noexcept
    int hoop_net_set_nonblocking(int fd) noexcept
    int hoop_net_set_nodelay(int fd, bint on) noexcept
    int hoop_net_shutdown_write(int fd) noexcept
    int hoop_net_socket_error(int fd) noexcept
    int hoop_net_close(int fd) noexcept
    int hoop_net_format_address(const sockaddr *address, socklen_t length, hoop_address *text) noexcept
    int hoop_net_host(const sockaddr *address, socklen_t length, uint8_t *host) noexcept
    ctypedef struct hoop_network:
        uint8_t host[16]
        int size
        int bits
    bint hoop_net_contains(const hoop_network *network, const uint8_t *host, int size) noexcept
    Py_ssize_t hoop_net_unix_name(const sockaddr *address, socklen_t length, const char **name) noexcept
    int hoop_net_parse_literal(const char *host, uint16_t port, sockaddr_storage *address) noexcept

cdef extern from "proxy_header.h" nogil:
    enum:
        HOOP_PROXY_V1
        HOOP_PROXY_V2
        HOOP_PROXY_TLV_SSL
        HOOP_PROXY_SSL_FIXED
    ctypedef struct hoop_proxy_header:
        unsigned version
        bint is_local
        socklen_t source_length
        socklen_t destination_length
        sockaddr_storage source
        sockaddr_storage destination
        const uint8_t *tlvs
        size_t tlvs_size
    ctypedef struct hoop_proxy_tlv:
        int type
        const uint8_t *value
        size_t size
    Py_ssize_t hoop_proxy_header_size(const uint8_t *data, size_t size, unsigned versions) noexcept
    int hoop_proxy_header_parse(const uint8_t *data, size_t size, hoop_proxy_header *header) noexcept
    int hoop_proxy_tlv_next(const uint8_t **rest, size_t *size, hoop_proxy_tlv *tlv) noexcept
    uint32_t hoop_proxy_crc32c(uint32_t before, const uint8_t *data, size_t size) noexcept

cdef extern from "send_batch.h" nogil:
    enum:
        HOOP_SEND_BATCH_MAX
        HOOP_SEND_BATCH_LEAST
    ctypedef struct hoop_send_batch:
        pass
    hoop_send_batch *hoop_send_batch_open() noexcept
    void hoop_send_batch_close(hoop_send_batch *batch) noexcept
    bint hoop_send_batch_add(hoop_send_batch *batch, int fd, const iovec *buffers, int count) noexcept
    int hoop_send_batch_count(const hoop_send_batch *batch) noexcept
    void hoop_send_batch_clear(hoop_send_batch *batch) noexcept
    int hoop_send_batch_send(hoop_send_batch *batch, Py_ssize_t *results) noexcept

cdef extern from "datagrams.h" nogil:
    enum:
        HOOP_DATAGRAMS_MAX
        HOOP_JOINED_MAX
        HOOP_JOINED_BYTES
    ctypedef struct hoop_datagram:
        const char *data
        Py_ssize_t size
        const sockaddr *address
        socklen_t address_length
    ctypedef struct hoop_datagram_reader:
        pass
    hoop_datagram_reader *hoop_datagram_reader_open() noexcept
    void hoop_datagram_reader_close(hoop_datagram_reader *reader) noexcept
    int hoop_datagram_reader_receive(hoop_datagram_reader *reader, int fd, size_t largest,
                                     hoop_datagram *datagrams) noexcept
    int hoop_datagram_reader_receive_one(hoop_datagram_reader *reader, int fd, size_t largest,
                                         hoop_datagram *datagram) noexcept
    int hoop_datagram_send(int fd, const hoop_datagram *datagram) noexcept
    int hoop_datagrams_send(int fd, const hoop_datagram *datagrams, int count) noexcept
    bint hoop_datagrams_can_join(int fd) noexcept
    int hoop_datagrams_send_joined(int fd, const hoop_datagram *datagrams, int count) noexcept
    bint hoop_datagrams_refuse_joining(int result) noexcept

cdef extern from "histogram.h" nogil:
    ctypedef struct hoop_histogram:
        uint64_t count
        uint64_t sum_ns
        int64_t max_ns
        uint64_t *buckets
    enum:
        HOOP_HISTOGRAM_BUCKETS
    void hoop_histogram_init(hoop_histogram *histogram) noexcept
    int64_t hoop_histogram_percentile(const hoop_histogram *histogram, double percentile) noexcept
    uint64_t hoop_histogram_count_from(const hoop_histogram *histogram, int64_t value_ns) noexcept
    int64_t hoop_histogram_mean_ns(const hoop_histogram *histogram) noexcept

cdef extern from "spin.h" nogil:
    ctypedef struct hoop_spin:
        int64_t limit_ns
    bint hoop_spin_may(hoop_spin *spin) noexcept
    void hoop_spin_put_off(hoop_spin *spin) noexcept
    void hoop_spin_ended(hoop_spin *spin, bint has_paid) noexcept

cdef extern from "spin_before_sleep.h" nogil:
    ctypedef enum hoop_spin_for:
        HOOP_SPIN_FOR_NODES
        HOOP_SPIN_FOR_EVENTS
        HOOP_SPIN_FOR_BOTH
    int hoop_spin_before_sleep(hoop_spin *spin, hoop_inbox *inbox, hoop_poller *poller, hoop_event *events,
                               int capacity, int64_t *timeout_ns, hoop_spin_for what) noexcept

cdef extern from "pool.h" nogil:
    ctypedef enum hoop_lane:
        HOOP_LANE_FILES
        HOOP_LANE_DNS
        HOOP_LANE_LOCAL_NAMES
        HOOP_LANE_ANSWERED_NAMES
    ctypedef enum hoop_job_state:
        HOOP_JOB_IDLE
        HOOP_JOB_DONE
        HOOP_JOB_STRANDED
    ctypedef struct hoop_job:
        hoop_job_state state
        hoop_job *newer
        hoop_inbox *inbox
        const hoop_waker *waker
        hoop_inbox_node *node
    ctypedef void (*hoop_job_fn)(hoop_job *job) noexcept nogil
    ctypedef struct hoop_worker:
        pass
    ctypedef struct hoop_pool:
        pass
    ctypedef struct hoop_pool_stats:
        int size
        int threads
        int idle
        size_t queued
        size_t running
        size_t dns_queued
        size_t dns_running
        uint64_t done
        uint64_t cancelled
        uint64_t refused
        uint64_t wake_ups
        hoop_histogram wait
        hoop_histogram run
    enum:
        HOOP_POOL_MAX_SIZE
    void hoop_job_init(hoop_job *job, hoop_job_fn run, hoop_lane lane) noexcept
    int hoop_pool_open(hoop_pool **pool, int size, size_t queue_limit, hoop_job_fn abandon) noexcept
    void hoop_pool_free(hoop_pool *pool) noexcept
    void hoop_pool_free_forked(hoop_pool *pool) noexcept
    int hoop_pool_submit(hoop_pool *pool, hoop_job *job, hoop_inbox *inbox, const hoop_waker *waker,
                         hoop_inbox_node *node) noexcept
    int hoop_pool_worker_failed(hoop_pool *pool) noexcept
    bint hoop_pool_cancel(hoop_pool *pool, hoop_job *job) noexcept
    hoop_job *hoop_pool_cancel_all(hoop_pool *pool, const hoop_inbox *inbox) noexcept
    hoop_job *hoop_pool_give_back(hoop_pool *pool) noexcept
    hoop_job *hoop_pool_give_back_stranded(hoop_pool *pool) noexcept
    bint hoop_pool_is_inside(hoop_pool *pool, const hoop_inbox *inbox) noexcept
    bint hoop_pool_wait_quiet(hoop_pool *pool, const hoop_inbox *inbox, int timeout_ms) noexcept
    void hoop_pool_disown(hoop_pool *pool, const hoop_inbox *inbox) noexcept
    void hoop_pool_stop(hoop_pool *pool) noexcept
    void hoop_pool_get_stats(hoop_pool *pool, hoop_pool_stats *stats) noexcept
    void hoop_pool_set_spin(hoop_pool *pool, int64_t spin_ns) noexcept
    int hoop_pool_work(hoop_pool *pool) noexcept
    int hoop_pool_enter(hoop_pool *pool, hoop_worker *worker) noexcept
    hoop_job *hoop_pool_next(hoop_pool *pool, hoop_worker *worker) noexcept
    bint hoop_pool_wait(hoop_pool *pool, hoop_worker *worker) noexcept
    void hoop_pool_leave(hoop_pool *pool, hoop_worker *worker) noexcept

cdef extern from "<sys/stat.h>" nogil:
    struct timespec:
        int64_t tv_sec
        long tv_nsec
    long UTIME_NOW
    unsigned S_IFMT, S_IFDIR, S_IFREG, S_IFLNK

cdef extern from "<fcntl.h>" nogil:
    unsigned AT_EACCESS, AT_SYMLINK_NOFOLLOW

cdef extern from "fs_contents.h" nogil:
    enum:
        HOOP_FS_APPEND
        HOOP_FS_EXCLUSIVE
        HOOP_FS_ATOMIC
        HOOP_FS_SYNC
        HOOP_FS_FIRST
        HOOP_FS_SECOND
    ctypedef struct hoop_contents:
        char *bytes
        size_t length

cdef extern from "fs_directory.h" nogil:
    ctypedef struct hoop_entry:
        uint64_t inode
        uint32_t type
        uint32_t target_type
        const char *name
        size_t length
    ctypedef struct hoop_listing:
        size_t count
    bint hoop_listing_next(const hoop_listing *listing, size_t *position, hoop_entry *entry) noexcept

cdef extern from "fs_cached.h" nogil:
    enum:
        HOOP_FS_CACHED_MOST_BYTES
        HOOP_FS_MISS_KINDS
    ctypedef struct hoop_fs_cached_file:
        int fd
        uint64_t device
        int64_t size
    ctypedef struct hoop_fs_cached:
        bint is_off
        const char *refused_call
        uint64_t mount_changes
        int refusal
        uint64_t hits
        uint64_t *misses
    void hoop_fs_cached_init(hoop_fs_cached *cached, bint is_off) noexcept
    void hoop_fs_cached_close(hoop_fs_cached *cached) noexcept
    int64_t hoop_fs_cached_open(hoop_fs_cached *cached, const char *path, uint64_t turn,
                                hoop_fs_cached_file *file) noexcept
    int64_t hoop_fs_cached_take(hoop_fs_cached *cached, hoop_fs_cached_file *file, void *buffer) noexcept
    int64_t hoop_fs_cached_keep(hoop_fs_cached *cached, hoop_fs_cached_file *file) noexcept
    int64_t hoop_fs_cached_read(hoop_fs_cached *cached, const hoop_fs_cached_file *file, uint64_t turn,
                                void *buffer) noexcept
    int hoop_fs_is_local(int fd) noexcept
    void hoop_fs_cached_learn(hoop_fs_cached *cached, uint64_t device, bint is_local, uint64_t mount_changes) noexcept

cdef extern from "jobs_fs.h" nogil:
    ctypedef enum hoop_fs_kind:
        HOOP_FS_READ_FILE
        HOOP_FS_READ_OPENED
        HOOP_FS_WRITE_FILE
        HOOP_FS_PREAD
        HOOP_FS_PWRITE
        HOOP_FS_STAT
        HOOP_FS_ACCESS
        HOOP_FS_LIST
        HOOP_FS_MKDIR
        HOOP_FS_MAKEDIRS
        HOOP_FS_UNLINK
        HOOP_FS_RMDIR
        HOOP_FS_RENAME
        HOOP_FS_LINK
        HOOP_FS_SYMLINK
        HOOP_FS_READLINK
        HOOP_FS_CHMOD
        HOOP_FS_CHOWN
        HOOP_FS_UTIME
        HOOP_FS_TRUNCATE
        HOOP_FS_SYNC_FILE
        HOOP_FS_COPY_FILE
    ctypedef struct hoop_fs_status:
        uint64_t device, inode, links, special_device
        uint32_t mode, user, group, flags, generation
        int64_t size, blocks, block_size
        int64_t accessed_s, accessed_ns, modified_s, modified_ns, changed_s, changed_ns, born_s, born_ns
    ctypedef struct hoop_fs_job:
        hoop_job job
        const char *path
        const char *other_path
        const void *data
        void *buffer
        size_t size
        int64_t offset
        int fd
        bint no_follow
        unsigned mode
        unsigned options
        uint32_t user, group
        timespec *times
        int64_t result
        unsigned blamed
        size_t length
        bint is_local
        hoop_fs_status status
        hoop_contents contents
        hoop_listing listing
    void hoop_fs_job_init(hoop_fs_job *job, hoop_fs_kind kind) noexcept
    void hoop_fs_job_free(hoop_fs_job *job) noexcept

cdef extern from "jobs_dns.h" nogil:
    ctypedef struct hoop_address_info:
        int family
        int type
        int protocol
        socklen_t address_length
        const char *canonical_name
        sockaddr_storage address
    ctypedef struct hoop_getaddrinfo_job:
        hoop_job job
        bint is_elsewhere
        int status
        int system_error
        int count
        hoop_address_info *infos
    void hoop_getaddrinfo_job_init(hoop_getaddrinfo_job *job, hoop_lane lane, const char *host, const char *service,
                                   int family, int type, int protocol, int flags) noexcept
    void hoop_getaddrinfo_job_run(hoop_getaddrinfo_job *job) noexcept
    void hoop_getaddrinfo_job_free(hoop_getaddrinfo_job *job) noexcept
    enum:
        HOOP_NAME_SEVERAL_ADDRESSES
        HOOP_NAME_NOT_A_PAIR
    ctypedef struct hoop_getnameinfo_job:
        hoop_job job
        bint is_elsewhere
        int status
        int system_error
        int problem
        char *host_name
        char *service_name
    void hoop_getnameinfo_job_init(hoop_getnameinfo_job *job, hoop_lane lane, const char *host, int port,
                                   uint32_t flowinfo, uint32_t scope_id, bint is_pair, int flags) noexcept

cdef extern from "meter.h" nogil:
    ctypedef struct hoop_meter:
        uint64_t turns
        uint64_t callbacks
        uint64_t events
        uint64_t polls
        uint64_t sleeps
        int64_t busy_ns
        int64_t idle_ns
        int64_t counted_ns
        int64_t looked_ns
        hoop_histogram lag
        hoop_histogram lateness
    void hoop_meter_reset(hoop_meter *meter, int64_t now_ns) noexcept
    void hoop_meter_start(hoop_meter *meter, int64_t now_ns) noexcept
    void hoop_meter_stop(hoop_meter *meter, int64_t now_ns) noexcept
    void hoop_meter_looked(hoop_meter *meter, int64_t now_ns) noexcept
    void hoop_meter_asleep(hoop_meter *meter, int64_t now_ns) noexcept
    void hoop_meter_woke(hoop_meter *meter, int64_t now_ns) noexcept
    void hoop_meter_timers_due(hoop_meter *meter, int64_t deadline_ns, int64_t now_ns) noexcept

cdef extern from "board.h" nogil:
    enum:
        HOOP_BOARD_TURNS
        HOOP_BOARD_CALLBACKS
        HOOP_BOARD_EVENTS
        HOOP_BOARD_POLLS
        HOOP_BOARD_SLEEPS
        HOOP_BOARD_BUSY_NS
        HOOP_BOARD_IDLE_NS
        HOOP_BOARD_ACCEPTS
        HOOP_BOARD_CONNECTIONS
        HOOP_BOARD_JOBS
    enum:
        HOOP_BOARD_MOST_PLACES
    ctypedef struct hoop_board_place:
        pass
    ctypedef struct hoop_board:
        hoop_board_place *places
        int count
        int fd
    ctypedef struct hoop_board_reading:
        int64_t busy_since_ns
        bint is_running
        bint is_torn
        uint64_t pid
        uint64_t *figures
        uint64_t requests
        hoop_histogram lag
    ctypedef struct hoop_board_writer:
        hoop_board_place *place
        uint64_t accepts
        uint64_t connections
    int hoop_board_open(hoop_board *board, int places) noexcept
    int hoop_board_adopt(hoop_board *board, int fd) noexcept
    void hoop_board_close(hoop_board *board) noexcept
    void hoop_board_clear(hoop_board_place *place) noexcept
    void hoop_board_read(hoop_board_place *place, hoop_board_reading *reading) noexcept
    void hoop_board_attach(hoop_board_writer *writer, hoop_board_place *place, const hoop_meter *meter,
                           int64_t now_ns) noexcept
    void hoop_board_detach(hoop_board_writer *writer) noexcept
    void hoop_board_carry(hoop_board_writer *writer, const hoop_meter *meter) noexcept
    void hoop_board_tell_run(hoop_board_writer *writer, const hoop_meter *meter, bint is_running,
                             int64_t now_ns) noexcept
    void hoop_board_tell_look(hoop_board_writer *writer, const hoop_meter *meter, int64_t busy_since_ns,
                              size_t jobs) noexcept
    void hoop_board_woke(hoop_board_writer *writer, int64_t now_ns) noexcept
    void hoop_board_count_requests(hoop_board_place *place, uint64_t count) noexcept

cdef extern from "openssl.h" nogil:
    ctypedef enum hoop_openssl_state:
        HOOP_OPENSSL_READY, HOOP_OPENSSL_NOT_SHARED, HOOP_OPENSSL_STATIC, HOOP_OPENSSL_INCOMPLETE
        HOOP_OPENSSL_DIVIDED, HOOP_OPENSSL_OUT_OF_MEMORY
    ctypedef struct hoop_tls_channel:
        const char *in_ "in"
        size_t in_size
        char *room
        size_t room_size
        size_t room_used
        char *spill
        size_t spill_size
        size_t spill_capacity
        bint is_out_of_memory
    hoop_openssl_state hoop_openssl_find(const char *module_path) noexcept
    unsigned long hoop_openssl_version() noexcept
    bint hoop_openssl_is_connection(void *ssl, const void *owner, const void *context, const void *incoming,
                                    const void *outgoing) noexcept
    void *hoop_tls_attach(void *ssl, hoop_tls_channel *channel) noexcept
    void hoop_tls_detach(void *bio, hoop_tls_channel *channel) noexcept
    Py_ssize_t hoop_tls_read(void *ssl, hoop_tls_channel *channel, char *buffer, size_t size) noexcept
    Py_ssize_t hoop_tls_write(void *ssl, hoop_tls_channel *channel, const char *data, size_t size) noexcept
    bint hoop_tls_is_within_record(void *ssl) noexcept
    size_t hoop_tls_decrypted(const void *ssl) noexcept
