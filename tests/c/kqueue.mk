# The kqueue back end on Linux, through an emulation of kqueue on epoll (kqueue_on_epoll/):
#
#   make -f kqueue.mk check
#
# The poller's tests are the ordinary ones; they run on every back end of the build, and here kqueue is one of them.

CSRC_DIR := ../../csrc
BUILD := ../../build/ctests/kqueue
EMULATION := kqueue_on_epoll
CSRC := $(wildcard $(CSRC_DIR)/poller*.c) $(CSRC_DIR)/net.c
HEADERS := $(wildcard $(CSRC_DIR)/*.h) $(wildcard *.h) $(EMULATION)/sys/event.h
TESTS := test_poller test_poller_wait test_poller_random

CFLAGS ?= -g -O1
FLAGS := -std=c11 -D_GNU_SOURCE -DHOOP_HAVE_KQUEUE=1 -Wall -Wextra -Wundef -Werror $(CFLAGS) -pthread \
    -fsanitize=address,undefined -fno-sanitize-recover=all -I$(EMULATION) -I$(CSRC_DIR) -I.
OBJECTS := $(CSRC:$(CSRC_DIR)/%.c=$(BUILD)/%.o) $(BUILD)/kqueue_on_epoll.o $(BUILD)/alloc_fault.o

.PHONY: check
.DELETE_ON_ERROR:
.SECONDARY:

check: $(TESTS:%=run-%)

.PHONY: $(TESTS:%=run-%)
$(TESTS:%=run-%): run-%: $(BUILD)/%
	@echo "kqueue $*"
	@$<

$(BUILD)/test_%: $(BUILD)/test_%.o $(OBJECTS)
	$(CC) $(FLAGS) -Wl,--wrap=close,--wrap=dup2 $^ -o $@

$(BUILD)/%.o: $(CSRC_DIR)/%.c $(HEADERS) kqueue.mk | $(BUILD)
	$(CC) $(FLAGS) -DALLOC_FAULT_INJECT -include alloc_fault.h -c $< -o $@

$(BUILD)/kqueue_on_epoll.o: $(EMULATION)/kqueue_on_epoll.c $(HEADERS) kqueue.mk | $(BUILD)
	$(CC) $(FLAGS) -c $< -o $@

$(BUILD)/%.o: %.c $(HEADERS) kqueue.mk | $(BUILD)
	$(CC) $(FLAGS) -c $< -o $@

$(BUILD):
	mkdir -p $@
