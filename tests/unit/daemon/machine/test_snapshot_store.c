/* Snapshots on disk: what is saved comes back; what is damaged is refused by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "daemon/machine/snapshot_store.h"

struct fixture {
    char path[64];
    int dir;
    struct snapshot_key key;
    struct snapshot made;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct error e = ERROR_INIT;

    *state = f;
    (void)snprintf(f->path, sizeof(f->path), "/tmp/test-snapshot-XXXXXX");
    if (f == NULL || mkdtemp(f->path) == NULL)
        return -1;
    f->dir = open(f->path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    f->key = (struct snapshot_key){.name = "python-1-64-16",
                                   .fingerprint = "kernel a, root b",
                                   .vcpus = 1,
                                   .mem_mib = 64,
                                   .disk_mib = 16};
    if (snapshot_prepare(&f->made, &f->key, f->dir, &e) != 0 ||
        pwrite(f->made.mem_fd, "first", 5, 0) != 5 ||
        pwrite(f->made.mem_fd, "last", 4, (off_t)(64 * MIB - 4)) != 4 ||
        pwrite(f->made.mem_fd, "odd", 3, 12345677) != 3 ||
        pwrite(f->made.state_fd, "state!", 6, 0) != 6 ||
        pwrite(f->made.scratch_fd, "disk", 4, 1024) != 4 || snapshot_seal(&f->made, &e) != 0 ||
        snapshot_save(&f->made, &f->key, f->dir, &e) != 0)
        return -1;
    return 0;
}

/* Whether it was there. */
static bool remove_saved(const struct fixture *f, const char *name)
{
    static const char *const files[] = {"/manifest", "/state", "/mem", "/scratch", ""};
    char path[256];
    int removed = -1;

    for (size_t i = 0; i < 5; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s%s", f->path, name, files[i]);
        removed = remove(path);
    }
    return removed == 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    (void)remove_saved(f, f->key.name);
    snapshot_fini(&f->made);
    fd_close(&f->dir);
    int result = rmdir(f->path); /* fails where anything else was left */
    free(f);
    return result;
}

static void comes_back_whole_and_sealed(void **state)
{
    struct fixture *f = *state;
    struct snapshot s = SNAPSHOT_INIT;
    struct error e = ERROR_INIT;
    char bytes[8] = "";
    struct stat st;

    assert_int_equal(snapshot_load(&s, &f->key, f->dir, &e), 0);
    assert_int_equal(pread(s.mem_fd, bytes, 5, 0), 5);
    assert_memory_equal(bytes, "first", 5);
    assert_int_equal(pread(s.mem_fd, bytes, 4, (off_t)(64 * MIB - 4)), 4);
    assert_memory_equal(bytes, "last", 4);
    assert_int_equal(pread(s.mem_fd, bytes, 3, 12345677), 3);
    assert_memory_equal(bytes, "odd", 3);
    assert_int_equal(pread(s.state_fd, bytes, 8, 0), 6);
    assert_memory_equal(bytes, "state!", 6);
    assert_int_equal(pwrite(s.mem_fd, "x", 1, 0), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(ftruncate(s.mem_fd, 0), -1);
    assert_int_equal(pwrite(s.state_fd, "x", 1, 0), -1);
    assert_int_equal(fstat(s.mem_fd, &st), 0);
    assert_true((uint64_t)st.st_blocks * 512 < 2 * MIB); /* sparse */
    snapshot_fini(&s);
}

static void scratch_is_a_copy(void **state)
{
    struct fixture *f = *state;
    struct snapshot s = SNAPSHOT_INIT;
    struct error e = ERROR_INIT;
    char bytes[4];
    struct stat st;

    assert_int_equal(snapshot_load(&s, &f->key, f->dir, &e), 0);
    int fd = snapshot_scratch(&s, f->dir, &e);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, 16 * MIB);
    assert_int_equal(st.st_nlink, 0);
    assert_int_equal(pread(fd, bytes, 4, 1024), 4);
    assert_memory_equal(bytes, "disk", 4);
    assert_int_equal(pwrite(fd, "mine", 4, 1024), 4);
    assert_int_equal(pread(s.scratch_fd, bytes, 4, 1024), 4);
    assert_memory_equal(bytes, "disk", 4);
    fd_close(&fd);
    snapshot_fini(&s);
}

static void another_fingerprint_is_made_anew(void **state)
{
    struct fixture *f = *state;
    struct snapshot s = SNAPSHOT_INIT;
    struct error e = ERROR_INIT;
    struct snapshot_key key = f->key;

    (void)snprintf(key.fingerprint, sizeof(key.fingerprint), "kernel c, root b");
    assert_int_equal(snapshot_load(&s, &key, f->dir, &e), 1);
    (void)snprintf(key.name, sizeof(key.name), "other-1-64-16");
    assert_int_equal(snapshot_load(&s, &key, f->dir, &e), 1);
    assert_int_equal(e.code, ERR_NONE);
}

static void damage(const struct fixture *f, const char *file, off_t at, bool cut)
{
    char path[256];
    char byte;

    (void)snprintf(path, sizeof(path), "%s/%s/%s", f->path, f->key.name, file);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    if (cut) {
        assert_int_equal(ftruncate(fd, at), 0);
    } else {
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        byte ^= 0x40;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    }
    fd_close(&fd);
}

static void expect_corrupt(const struct fixture *f)
{
    struct snapshot s = SNAPSHOT_INIT;
    struct error e = ERROR_INIT;

    assert_int_equal(snapshot_load(&s, &f->key, f->dir, &e), -1);
    assert_int_equal(e.code, ERR_TEMPLATE_CORRUPT);
    assert_true(strlen(e.remedy) > 0);
    assert_int_equal(s.mem_fd, -1);
}

static void damage_is_found(void **state)
{
    static const struct {
        const char *file;
        off_t at;
        bool cut;
    } cases[] = {{"mem", 2, false},       {"mem", 30 * 1024 * 1024, false},
                 {"mem", 4096, true},     {"state", 3, false},
                 {"state", 5, true},      {"scratch", 1025, false},
                 {"scratch", 100, true},  {"manifest", 0, false},
                 {"manifest", 20, false}, {"manifest", 300, false},
                 {"manifest", 100, true}, {"manifest", 0, true}};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error e = ERROR_INIT;

        damage(f, cases[i].file, cases[i].at, cases[i].cut);
        expect_corrupt(f);
        /* Saving again replaces the damaged one. */
        assert_int_equal(snapshot_save(&f->made, &f->key, f->dir, &e), 0);
    }
}

static void one_half_removed_is_made_anew(void **state)
{
    struct fixture *f = *state;
    struct error e = ERROR_INIT;
    struct snapshot s = SNAPSHOT_INIT;
    char path[256];

    (void)snprintf(path, sizeof(path), "%s/%s/manifest", f->path, f->key.name);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(snapshot_load(&s, &f->key, f->dir, &e), 1);
    assert_int_equal(e.code, ERR_NONE);
    assert_int_equal(snapshot_save(&f->made, &f->key, f->dir, &e), 0);
    assert_int_equal(snapshot_load(&s, &f->key, f->dir, &e), 0);
    snapshot_fini(&s);
}

#define DISK_PAGES 256u

/* A disk of DISK_PAGES pages at `path`, seen by this process alone. */
static void mount_small_disk(const char *path)
{
    char options[64];

    (void)snprintf(options, sizeof(options), "mode=700,size=%u", DISK_PAGES * 4096);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(unshare(CLONE_NEWNS), 0);
    assert_int_equal(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    assert_int_equal(mount("tmpfs", path, "tmpfs", MS_NODEV | MS_NOSUID, options), 0);
}

/* Writes a file to a disk until nothing more fits, and takes `pages` away again. */
static void fill_disk(int dir, unsigned pages)
{
    static const char page[4096] = "x";
    int fd = openat(dir, "fill", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    off_t size = lseek(fd, 0, SEEK_END);

    assert_true(fd >= 0);
    for (; write(fd, page, sizeof(page)) == (ssize_t)sizeof(page); size += (off_t)sizeof(page))
        continue;
    assert_int_equal(errno, ENOSPC);
    assert_true(size >= (off_t)(pages * sizeof(page)));
    assert_int_equal(ftruncate(fd, size - (off_t)(pages * sizeof(page))), 0);
    fd_close(&fd);
}

static unsigned count_names(int dir_fd)
{
    int fd = openat(dir_fd, ".", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    DIR *dir = fdopendir(fd);
    unsigned count = 0;

    assert_non_null(dir);
    while (readdir(dir) != NULL)
        count++;
    (void)closedir(dir);
    return count - 2; /* "." and ".." */
}

/* Whether the stored snapshot is whole, and begins with `first`. */
static void expect_stored(const struct fixture *f, int dir, const char *first)
{
    struct snapshot s = SNAPSHOT_INIT;
    struct error e = ERROR_INIT;
    char bytes[6] = "";

    assert_int_equal(snapshot_load(&s, &f->key, dir, &e), 0);
    assert_int_equal(pread(s.mem_fd, bytes, 5, 0), 5);
    assert_string_equal(bytes, first);
    snapshot_fini(&s);
}

/* With each number of free pages that does not suffice, so that each file in turn is the one that
 * does not fit; the first number that does replaces the old one. */
static void a_full_disk_keeps_the_old_one(void **state)
{
    struct fixture *f = *state;
    struct snapshot other = SNAPSHOT_INIT;
    struct error e = ERROR_INIT;
    char path[80];
    unsigned failures = 0;

    if (geteuid() != 0) {
        print_message("needs root\n");
        skip();
    }
    (void)snprintf(path, sizeof(path), "%s/disk", f->path);
    mount_small_disk(path);
    int dir = open(path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    assert_true(dir >= 0);
    assert_int_equal(snapshot_save(&f->made, &f->key, dir, &e), 0);
    assert_int_equal(snapshot_prepare(&other, &f->key, f->dir, &e), 0);
    assert_int_equal(pwrite(other.mem_fd, "other", 5, 0), 5);
    assert_int_equal(pwrite(other.state_fd, "state", 5, 0), 5);
    assert_int_equal(pwrite(other.scratch_fd, "disk", 4, 0), 4);
    for (;; failures++) {
        fill_disk(dir, failures);
        if (snapshot_save(&other, &f->key, dir, &e) == 0)
            break;
        assert_int_equal(e.code, ERR_INTERNAL);
        assert_string_equal(e.cause, strerror(ENOSPC));
        assert_int_equal(count_names(dir), 2); /* itself, and what fills the disk */
        expect_stored(f, dir, "first");
        e = (struct error)ERROR_INIT;
    }
    assert_true(failures >= 4); /* no file of the four fitted at first */
    expect_stored(f, dir, "other");
    snapshot_fini(&other);
    fd_close(&dir);
    assert_int_equal(umount2(path, 0), 0);
    assert_int_equal(rmdir(path), 0);
}

static void those_used_longest_ago_go(void **state)
{
    struct fixture *f = *state;
    struct error e = ERROR_INIT;
    struct snapshot s = SNAPSHOT_INIT;
    struct snapshot_key key = f->key;

    for (unsigned i = 0; i < SNAPSHOT_STORED_MAX; i++) {
        /* The oldest one is used again before there are too many. */
        if (i == SNAPSHOT_STORED_MAX - 1) {
            assert_int_equal(snapshot_load(&s, &f->key, f->dir, &e), 0);
            snapshot_fini(&s);
        }
        (void)snprintf(key.name, sizeof(key.name), "shape-%u", i);
        assert_int_equal(snapshot_save(&f->made, &key, f->dir, &e), 0);
    }
    assert_int_equal(snapshot_load(&s, &f->key, f->dir, &e), 0);
    snapshot_fini(&s);
    for (unsigned i = 0; i < SNAPSHOT_STORED_MAX; i++) {
        (void)snprintf(key.name, sizeof(key.name), "shape-%u", i);
        assert_int_equal(remove_saved(f, key.name), i != 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(comes_back_whole_and_sealed, setup, teardown),
        cmocka_unit_test_setup_teardown(scratch_is_a_copy, setup, teardown),
        cmocka_unit_test_setup_teardown(another_fingerprint_is_made_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(damage_is_found, setup, teardown),
        cmocka_unit_test_setup_teardown(one_half_removed_is_made_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_disk_keeps_the_old_one, setup, teardown),
        cmocka_unit_test_setup_teardown(those_used_longest_ago_go, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
