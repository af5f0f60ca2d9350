/*
 * A disk that hangs: nothing else may wait for it, but for a reset and the freeze before a
 * snapshot, which must. The host's calls are held here, in the stead of a slow disk: this program's
 * fdatasync and preadv are the ones that the block device calls.
 */
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#include "virtio_driver.h"

#define SCRATCH    GUEST_VIRTIO_SCRATCH
#define RNG        GUEST_VIRTIO_RNG
#define CONSOLE    GUEST_VIRTIO_CONSOLE
#define PORT_TX    5u
#define RUNNING    0xfu
#define HANG_S     120u /* a test that waits for the disk is ended by its alarm */
#define UNANSWERED 0xeeu
#define PATTERN    0xa5

#define HEADER_GPA(i) (DRIVER_DATA_GPA + (i)*0x2000u)
#define STATUS_GPA(i) (HEADER_GPA(i) + 0x100u)
#define DATA_GPA(i)   (HEADER_GPA(i) + 0x1000u)

static struct driver_vm vm;
static struct driver_queue disk;

static struct {
    atomic_bool holds;
    atomic_uint calls; /* that have begun */
    sem_t begun;
    sem_t go_on;
} host;

static void host_call(void)
{
    atomic_fetch_add(&host.calls, 1);
    if (atomic_load(&host.holds)) {
        (void)sem_post(&host.begun);
        while (sem_wait(&host.go_on) != 0)
            ;
    }
}

int fdatasync(int fd)
{
    host_call();
    return (int)syscall(SYS_fdatasync, fd);
}

ssize_t preadv(int fd, const struct iovec *iov, int count, off_t at)
{
    host_call();
    return syscall(SYS_preadv, fd, iov, count, at, 0);
}

static int setup(void **state)
{
    (void)state;
    (void)alarm(HANG_S);
    atomic_store(&host.calls, 0);
    atomic_store(&host.holds, true);
    assert_int_equal(sem_init(&host.begun, 0, 0), 0);
    assert_int_equal(sem_init(&host.go_on, 0, 0), 0);
    driver_vm_init(&vm);
    driver_negotiate(&vm, SCRATCH);
    driver_queue_init(&disk, &vm, SCRATCH, 0, 64);
    driver_start(&vm, SCRATCH);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    driver_vm_fini(&vm);
    (void)alarm(0);
    return 0;
}

/* A driver's disk request number `i`, without telling the device. */
static void add_request(unsigned i, uint32_t type)
{
    const struct driver_buffer read[] = {
        {HEADER_GPA(i), 16, false}, {DATA_GPA(i), 512, true}, {STATUS_GPA(i), 1, true}};
    const struct driver_buffer flush[] = {{HEADER_GPA(i), 16, false}, {STATUS_GPA(i), 1, true}};
    const struct virtio_blk_outhdr header = {.type = type};

    memcpy(driver_at(&vm, HEADER_GPA(i)), &header, sizeof(header));
    memset(driver_at(&vm, STATUS_GPA(i)), UNANSWERED, 1);
    if (type == VIRTIO_BLK_T_IN)
        (void)driver_add(&disk, read, 3);
    else
        (void)driver_add(&disk, flush, 2);
}

static uint8_t answer_of(unsigned i)
{
    return *(uint8_t *)driver_at(&vm, STATUS_GPA(i));
}

static bool take_one(void)
{
    uint32_t bytes;
    uint16_t head;

    return driver_take(&disk, &head, &bytes);
}

/* The thread that serves disks, for one notification. */
static void *serve_disk(void *arg)
{
    (void)arg;
    driver_kick(&disk);
    return NULL;
}

/* Returns when the host's call has begun. */
static pthread_t hang(void)
{
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, serve_disk, NULL), 0);
    while (sem_wait(&host.begun) != 0)
        ;
    return thread;
}

static void end_hang(pthread_t thread)
{
    atomic_store(&host.holds, false);
    assert_int_equal(sem_post(&host.go_on), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

/* A thread that may have to wait: for a vCPU's reset, for the one that parks. */
struct waiter {
    void (*call)(void);
    pthread_t thread;
    atomic_int tid;
    atomic_bool done;
    unsigned calls_then; /* of the host's, when `call` returned */
};

static void *waiter_main(void *arg)
{
    struct waiter *w = arg;

    atomic_store(&w->tid, (int)syscall(SYS_gettid));
    w->call();
    w->calls_then = atomic_load(&host.calls);
    atomic_store(&w->done, true);
    return NULL;
}

static char state_of_thread(int tid)
{
    char path[64], line[256] = "";

    (void)snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof(line), f));
    (void)fclose(f);
    const char *end = strrchr(line, ')');
    assert_non_null(end);
    return end[2];
}

/* Starts it and returns when it has ended or sleeps; whether it sleeps. */
static bool waiter_start(struct waiter *w, void (*call)(void))
{
    *w = (struct waiter){.call = call};
    assert_int_equal(pthread_create(&w->thread, NULL, waiter_main, w), 0);
    for (;;) {
        int tid = atomic_load(&w->tid);

        if (atomic_load(&w->done))
            return false;
        if (tid != 0 && state_of_thread(tid) == 'S')
            return true;
        (void)usleep(1000);
    }
}

static void test_others_go_on(void **state)
{
    struct driver_queue rng, port[6];
    char text[8] = "";
    uint32_t bytes;
    uint16_t head;

    (void)state;
    add_request(0, VIRTIO_BLK_T_FLUSH);
    pthread_t thread = hang();
    /* The entropy device, from its set-up on. */
    driver_negotiate(&vm, RNG);
    driver_queue_init(&rng, &vm, RNG, 0, 8);
    driver_start(&vm, RNG);
    (void)driver_add(&rng, &(struct driver_buffer){DATA_GPA(1), 16, true}, 1);
    driver_kick(&rng);
    assert_true(driver_take(&rng, &head, &bytes));
    /* The channel, both by its queue and by its descriptor. */
    driver_negotiate(&vm, CONSOLE);
    for (unsigned i = 0; i < 6; i++)
        driver_queue_init(&port[i], &vm, CONSOLE, i, 4);
    driver_start(&vm, CONSOLE);
    memcpy(driver_at(&vm, DATA_GPA(2)), "channel", 7);
    (void)driver_add(&port[PORT_TX], &(struct driver_buffer){DATA_GPA(2), 7, false}, 1);
    driver_kick(&port[PORT_TX]);
    assert_true(driver_take(&port[PORT_TX], &head, &bytes));
    assert_int_equal(read(vm.channel_fd, text, sizeof(text)), 7);
    assert_string_equal(text, "channel");
    assert_int_equal(driver_channel_events(&vm), 0);
    assert_int_equal(driver_channel_io(&vm, 0), 0);
    /* The disk's own registers; a notification reaches its thread when that comes back. */
    assert_int_equal(driver_read(&vm, SCRATCH, VIRTIO_MMIO_STATUS), RUNNING);
    assert_int_equal(driver_read(&vm, SCRATCH, VIRTIO_MMIO_CONFIG), DRIVER_DISK_BYTES / 512);
    driver_write(&vm, SCRATCH, VIRTIO_MMIO_INTERRUPT_ACK, UINT32_MAX);
    driver_write(&vm, SCRATCH, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    assert_true(driver_notified(&vm, SCRATCH));
    /* All that while the disk was at it. */
    assert_int_equal(answer_of(0), UNANSWERED);
    assert_false(take_one());
    end_hang(thread);
    assert_int_equal(answer_of(0), VIRTIO_BLK_S_OK);
    assert_true(take_one());
    assert_int_equal(driver_interrupts(&vm, SCRATCH), 1);
}

static void reset_disk(void)
{
    driver_write(&vm, SCRATCH, VIRTIO_MMIO_STATUS, 0);
    /* The driver has its buffers back. */
    memset(driver_at(&vm, DATA_GPA(0)), PATTERN, 512);
}

static void test_reset_waits(void **state)
{
    struct waiter vcpu;
    uint8_t expected[512];

    (void)state;
    add_request(0, VIRTIO_BLK_T_IN);
    add_request(1, VIRTIO_BLK_T_IN);
    add_request(2, VIRTIO_BLK_T_FLUSH);
    pthread_t thread = hang();
    assert_true(waiter_start(&vcpu, reset_disk));
    /* Another vCPU sees no reset that is not done, and cannot set the device up meanwhile. */
    assert_int_equal(driver_read(&vm, SCRATCH, VIRTIO_MMIO_STATUS), RUNNING);
    driver_write(&vm, SCRATCH, VIRTIO_MMIO_QUEUE_NUM, 8);
    assert_false(atomic_load(&vcpu.done));
    end_hang(thread);
    assert_int_equal(pthread_join(vcpu.thread, NULL), 0);
    assert_int_equal(driver_read(&vm, SCRATCH, VIRTIO_MMIO_STATUS), 0);
    assert_int_equal(vcpu.calls_then, 1); /* what came behind was not begun */
    assert_int_equal(answer_of(1), UNANSWERED);
    memset(expected, PATTERN, sizeof(expected));
    assert_memory_equal(driver_at(&vm, DATA_GPA(0)), expected, sizeof(expected));
    /* It works again. */
    driver_negotiate(&vm, SCRATCH);
    driver_queue_init(&disk, &vm, SCRATCH, 0, 64);
    driver_start(&vm, SCRATCH);
    add_request(0, VIRTIO_BLK_T_FLUSH);
    driver_kick(&disk);
    assert_true(take_one());
    assert_int_equal(answer_of(0), VIRTIO_BLK_S_OK);
}

/* A driver that gives up, by a status write that is no reset, has nothing further begun. */
static void test_failed_meanwhile(void **state)
{
    (void)state;
    add_request(0, VIRTIO_BLK_T_FLUSH);
    add_request(1, VIRTIO_BLK_T_FLUSH);
    pthread_t thread = hang();
    driver_write(&vm, SCRATCH, VIRTIO_MMIO_STATUS, RUNNING | VIRTIO_CONFIG_S_FAILED);
    end_hang(thread);
    assert_int_equal(answer_of(0), VIRTIO_BLK_S_OK);
    assert_true(take_one());
    assert_int_equal(answer_of(1), UNANSWERED);
    assert_int_equal(atomic_load(&host.calls), 1);
}

static void freeze(void)
{
    devices_freeze(vm.devices);
}

static void test_freeze_waits(void **state)
{
    struct waiter parker;

    (void)state;
    add_request(0, VIRTIO_BLK_T_FLUSH);
    pthread_t thread = hang();
    add_request(1, VIRTIO_BLK_T_FLUSH); /* its notification may be on its way */
    assert_true(waiter_start(&parker, freeze));
    end_hang(thread);
    assert_int_equal(pthread_join(parker.thread, NULL), 0);
    assert_int_equal(answer_of(0), VIRTIO_BLK_S_OK);
    assert_int_equal(answer_of(1), VIRTIO_BLK_S_OK);
    assert_true(take_one() && take_one());
    /* From now on guest memory is left alone, whoever is woken. */
    add_request(2, VIRTIO_BLK_T_FLUSH);
    driver_kick(&disk);
    assert_int_equal(answer_of(2), UNANSWERED);
    assert_int_equal(driver_channel_events(&vm), 0);
    assert_int_equal(driver_channel_io(&vm, 0), 0);
    /* What was saved goes on where it was. */
    driver_vm_restore(&vm);
    driver_kick(&disk);
    assert_int_equal(answer_of(2), VIRTIO_BLK_S_OK);
    assert_true(take_one());
}

static atomic_bool serving_ends;

static void *serve_on(void *arg)
{
    (void)arg;
    while (!atomic_load(&serving_ends))
        devices_notify(vm.devices, SCRATCH);
    return NULL;
}

/* The vCPU and the disk's thread at full speed: after a reset no buffer is written any more, and no
 * half of an old life is found in the new one. */
static void test_many_resets(void **state)
{
    uint8_t expected[512];
    pthread_t thread;

    (void)state;
    memset(expected, PATTERN, sizeof(expected));
    atomic_store(&host.holds, false);
    atomic_store(&serving_ends, false);
    assert_int_equal(pthread_create(&thread, NULL, serve_on, NULL), 0);
    for (unsigned round = 0; round < 300; round++) {
        for (unsigned i = 0; i < 8; i++)
            add_request(i, VIRTIO_BLK_T_IN);
        for (unsigned done = 0; done < round % 9;)
            done += take_one();
        driver_write(&vm, SCRATCH, VIRTIO_MMIO_STATUS, 0);
        for (unsigned i = 0; i < 8; i++)
            memset(driver_at(&vm, DATA_GPA(i)), PATTERN, 512);
        driver_negotiate(&vm, SCRATCH);
        for (unsigned i = 0; i < 8; i++)
            assert_memory_equal(driver_at(&vm, DATA_GPA(i)), expected, 512);
        driver_queue_init(&disk, &vm, SCRATCH, 0, 64);
        driver_start(&vm, SCRATCH);
        assert_false(driver_needs_reset(&vm, SCRATCH));
    }
    atomic_store(&serving_ends, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_others_go_on, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failed_meanwhile, setup, teardown),
        cmocka_unit_test_setup_teardown(test_freeze_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_resets, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
