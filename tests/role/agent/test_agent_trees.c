/* The agent's TREE_IN and TREE_OUT over a socket pair: whole trees below a directory of the host's,
 * and entries that try to leave it. */
#include "fileops_fixture.h"

#include "base/tree.h"

#define BIG_BYTES (300u * 1024)

static const struct tree_entry dir_a = {
    .type = TREE_DIRECTORY, .mode = 0755, .path = "a", .target = ""};

static struct buffer new_stream(void)
{
    return (struct buffer)BUFFER_INIT(PEER_BYTES_MAX);
}

/* Puts an entry, and a file's content: `size` times 'x'. */
static void put_entry(struct buffer *b, const struct tree_entry *entry)
{
    uint8_t *to = buffer_reserve(b, TREE_RECORD_BYTES_MAX);

    assert_non_null(to);
    buffer_commit(b, tree_entry_put(entry, to, TREE_RECORD_BYTES_MAX));
    for (uint64_t i = 0; entry->type == TREE_FILE && i < entry->size; i++)
        assert_int_equal(buffer_append(b, "x", 1), 0);
}

static void put_named(struct buffer *b, enum tree_type type, const char *path, const char *target)
{
    const struct tree_entry entry = {.type = type,
                                     .mode = 0644,
                                     .size = type == TREE_FILE ? 1 : 0,
                                     .path = path,
                                     .target = target};

    put_entry(b, &entry);
}

static uint32_t open_tree(struct fixture *f, enum channel_op op, const char *path)
{
    uint8_t bytes[CHANNEL_PATH_MAX + 64];
    struct wire_writer w;

    wire_writer_init(&w, bytes, sizeof(bytes));
    wire_put_u16(&w, (uint16_t)op);
    put_text(&w, path);
    peer_result_fini(&f->result);
    peer_result_init(&f->result);
    return peer_open(&f->peer, bytes, &w);
}

/* Sends lane 0 in pieces as the credit allows, then takes the END. Returns its status. */
static uint32_t send_stream(struct fixture *f, uint32_t id, struct buffer *b, size_t piece)
{
    static struct peer_frame frame;
    uint64_t credit = CHANNEL_WINDOW_BYTES;
    bool ended = false;

    for (size_t at = 0; at < b->size && !ended;) {
        size_t n = piece < b->size - at ? piece : b->size - at;
        while (!ended && (credit < n || peer_readable(&f->peer, 0))) {
            assert_true(peer_receive(&f->peer, &frame));
            assert_int_equal(frame.h.stream, id);
            if (frame.h.type == CHANNEL_CREDIT) {
                struct wire_reader r;
                wire_reader_init(&r, frame.payload, frame.h.length);
                credit += wire_get_u32(&r);
            }
            ended = peer_take(&f->result, &frame);
        }
        if (ended)
            break;
        peer_send(&f->peer, id, CHANNEL_DATA, CHANNEL_LANE_IN, buffer_bytes(b) + at, n);
        credit -= n;
        at += n;
    }
    if (!ended) {
        peer_send(&f->peer, id, CHANNEL_EOF, CHANNEL_LANE_IN, NULL, 0);
        peer_finish(&f->peer, id, &f->result);
    }
    buffer_fini(b);
    return f->result.status;
}

static uint32_t unpack(struct fixture *f, struct buffer *b, const char *path)
{
    return send_stream(f, open_tree(f, CHANNEL_OP_TREE_IN, path), b, 30000);
}

/* END's counts, where peer_parse_end() has put them: the fields of EXEC have the same sizes. */
static void assert_counts(const struct fixture *f, unsigned files, unsigned directories,
                          unsigned symlinks)
{
    assert_int_equal(f->result.status, 0);
    assert_int_equal(f->result.wall_us, files);
    assert_int_equal(f->result.user_us, directories);
    assert_int_equal(f->result.system_us, symlinks);
}

static struct stat stat_of(struct fixture *f, const char *name)
{
    struct stat st;

    assert_int_equal(lstat(in_dir(f, name), &st), 0);
    return st;
}

static unsigned entries_in(const char *path)
{
    DIR *dir = opendir(path);
    unsigned count = 0;

    assert_non_null(dir);
    for (struct dirent *d = readdir(dir); d != NULL; d = readdir(dir))
        count += strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0;
    (void)closedir(dir);
    return count;
}

static void put_example(struct buffer *b)
{
    static const struct tree_entry entries[] = {
        {TREE_DIRECTORY, 0555, 0, 0, 0, 1000000001, 5, "d", ""},
        {TREE_DIRECTORY, 01777, 0, 7, 8, 1000000002, 0, "d/sub dir", ""},
        {TREE_FILE, 04751, BIG_BYTES, 0, 0, 1000000003, 999999999, "d/sub dir/big", ""},
        {TREE_FILE, 0600, 0, 1000, 1001, -5, 0, "d/\xff\xfe", ""},
        {TREE_SYMLINK, 0777, 0, 3, 4, 1000000004, 0, "d/link", "/nowhere/at all"},
        {TREE_HARDLINK, 0, 0, 0, 0, 0, 0, "x/y/z/hard", "d/sub dir/big"},
        {TREE_DIRECTORY, 0700, 0, 0, 0, 0, 0, "empty", ""},
    };

    for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++)
        put_entry(b, &entries[i]);
}

static void assert_example(struct fixture *f)
{
    struct stat st = stat_of(f, "in/d");

    assert_true(S_ISDIR(st.st_mode) && (st.st_mode & 07777) == 0555);
    assert_true(st.st_mtim.tv_sec == 1000000001 && st.st_mtim.tv_nsec == 5);
    st = stat_of(f, "in/d/sub dir");
    assert_true((st.st_mode & 07777) == 01777 && st.st_uid == 7 && st.st_gid == 8);
    assert_true(st.st_mtim.tv_sec == 1000000002);
    st = stat_of(f, "in/d/sub dir/big");
    assert_true(st.st_size == BIG_BYTES && (st.st_mode & 07777) == 04751 && st.st_nlink == 2);
    assert_true(st.st_mtim.tv_sec == 1000000003 && st.st_mtim.tv_nsec == 999999999);
    st = stat_of(f, "in/d/\xff\xfe");
    assert_true(st.st_size == 0 && st.st_uid == 1000 && st.st_gid == 1001 && st.st_mtime == -5);
    st = stat_of(f, "in/d/link");
    assert_true(S_ISLNK(st.st_mode) && st.st_uid == 3 && st.st_mtime == 1000000004);
    assert_int_equal(stat_of(f, "in/x/y/z/hard").st_nlink, 2);
    assert_int_equal(entries_in(in_dir(f, "in/empty")), 0);
    assert_int_equal(entries_in(in_dir(f, "in/d")), 3);
    assert_int_equal(entries_in(in_dir(f, "in/x/y/z")), 1);
}

static void test_in(void **state)
{
    static const size_t pieces[] = {1024, 4096, 65536};
    struct fixture *f = *state;

    /* The second and the third time all is there, and replaced. */
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        struct buffer b = new_stream();
        put_example(&b);
        uint32_t id = open_tree(f, CHANNEL_OP_TREE_IN, in_dir(f, "in"));
        assert_int_equal(send_stream(f, id, &b, pieces[i]), 0);
        assert_counts(f, 3, 3, 1);
        assert_int_equal(f->result.max_rss_bytes, BIG_BYTES);
        assert_example(f);
    }
}

/* What is there gives way to a file, and is never written through. */
static void test_in_replaces(void **state)
{
    struct fixture *f = *state;
    struct buffer b = new_stream();

    put_file(in_dir(f, "kept"), "kept");
    assert_int_equal(mkdir(in_dir(f, "in"), 0755), 0);
    assert_int_equal(symlink("../kept", in_dir(f, "in/one")), 0);
    assert_int_equal(symlink("../kept", in_dir(f, "in/two")), 0);
    assert_int_equal(mkfifo(in_dir(f, "in/three"), 0600), 0);
    put_named(&b, TREE_FILE, "one", "");
    put_named(&b, TREE_SYMLINK, "two", "else");
    put_named(&b, TREE_FILE, "three", "");
    assert_int_equal(unpack(f, &b, in_dir(f, "in")), 0);
    assert_counts(f, 2, 0, 1);
    assert_true(S_ISREG(stat_of(f, "in/one").st_mode));
    assert_true(S_ISREG(stat_of(f, "in/three").st_mode));
    assert_int_equal(stat_of(f, "kept").st_size, 4);
}

static void test_in_hostile(void **state)
{
    static const struct {
        struct {
            enum tree_type type;
            const char *path, *target;
        } entries[3];
        uint32_t status;
        const char *words;
    } cases[] = {
        {{{TREE_SYMLINK, "l", "../out"}, {TREE_FILE, "l/f", ""}}, ELOOP, "l/f: leads through"},
        {{{TREE_SYMLINK, "l", "../out"}, {TREE_DIRECTORY, "l", ""}}, ENOTDIR, "l: "},
        {{{TREE_SYMLINK, "l", "../out"}, {TREE_DIRECTORY, "l/d/e", ""}}, ELOOP, "l/d/e"},
        {{{TREE_SYMLINK, "l", "."}, {TREE_FILE, "l/f", ""}}, ELOOP, "l/f"},
        {{{TREE_SYMLINK, "l", "/"}, {TREE_SYMLINK, "l/tmp/x", "y"}}, ELOOP, "l/tmp/x"},
        {{{TREE_SYMLINK, "l", "../out"}, {TREE_HARDLINK, "h", "l/victim"}}, ELOOP, "h: leads"},
        {{{TREE_SYMLINK, "l", "../out/victim"}, {TREE_HARDLINK, "h", "l"}}, EINVAL, "h: "},
        {{{TREE_DIRECTORY, "d", ""}, {TREE_HARDLINK, "h", "d"}}, EINVAL, "h: "},
        {{{TREE_HARDLINK, "h", "none"}}, ENOENT, "0 entries were unpacked, then h: "},
        {{{TREE_FILE, "f", ""}, {TREE_FILE, "f/g", ""}}, ENOTDIR, "f/g"},
        {{{TREE_FILE, "d/f", ""}, {TREE_FILE, "d", ""}}, EISDIR, "1 entries were unpacked, then d"},
        {{{TREE_FILE, "old/f", ""}}, ELOOP, "old/f"},
        {{{TREE_FILE, "../f", ""}}, EINVAL, "\"../f\""},
        {{{TREE_FILE, "/tmp/f", ""}}, EINVAL, "absolute"},
        {{{TREE_FILE, "a/../../f", ""}}, EINVAL, "'..'"},
        {{{TREE_HARDLINK, "h", "../out/victim"}}, EINVAL, "not in the tree"},
        {{{TREE_SKIPPED, "", ""}}, EINVAL, ""},
        {{{(enum tree_type)9, "a", ""}}, EINVAL, "no entry"},
    };
    struct fixture *f = *state;

    assert_int_equal(mkdir(in_dir(f, "out"), 0755), 0);
    put_file(in_dir(f, "out/victim"), "victim");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char name[16];
        struct buffer b = new_stream();
        (void)snprintf(name, sizeof(name), "in%zu", i);
        assert_int_equal(mkdir(in_dir(f, name), 0755), 0);
        char link[32];
        (void)snprintf(link, sizeof(link), "%s/old", name);
        assert_int_equal(symlink("../out", in_dir(f, link)), 0);
        for (size_t k = 0; k < 3 && cases[i].entries[k].path != NULL; k++)
            put_named(&b, cases[i].entries[k].type, cases[i].entries[k].path,
                      cases[i].entries[k].target);
        /* What follows is not unpacked, and no protocol error. */
        put_named(&b, TREE_FILE, "later", "");
        uint32_t status = unpack(f, &b, in_dir(f, name));
        if (status != cases[i].status || strstr(f->result.text, cases[i].words) == NULL)
            fail_msg("case %zu: %u %s", i, status, f->result.text);
        (void)snprintf(link, sizeof(link), "%s/later", name);
        assert_false(is_there(in_dir(f, link)));
    }
    assert_int_equal(entries_in(in_dir(f, "out")), 1);
    struct stat st = stat_of(f, "out/victim");
    assert_true(st.st_size == 6 && st.st_nlink == 1);
    assert_false(is_there("/tmp/f"));
}

/* A stream that ends anywhere leaves what came whole, and nothing half. */
static void test_in_truncated(void **state)
{
    struct fixture *f = *state;
    struct buffer whole = new_stream();
    size_t first, second;

    put_named(&whole, TREE_FILE, "one", "");
    first = whole.size;
    put_named(&whole, TREE_SYMLINK, "two", "x");
    second = whole.size;
    put_named(&whole, TREE_FILE, "three", "");
    for (size_t size = 0; size <= whole.size; size++) {
        struct buffer b = new_stream();
        assert_int_equal(buffer_append(&b, buffer_bytes(&whole), size), 0);
        assert_int_equal(unpack(f, &b, in_dir(f, "in")), 0);
        unsigned files = (size >= first) + (size == whole.size), links = size >= second;
        assert_counts(f, files, 0, links);
        assert_int_equal(entries_in(in_dir(f, "in")), files + links);
        if (size < whole.size)
            continue;
        assert_int_equal(stat_of(f, "in/three").st_size, 1);
    }
    buffer_fini(&whole);
}

static void test_in_reset(void **state)
{
    static const struct tree_entry big = {
        .type = TREE_FILE, .mode = 0644, .size = 1 << 20, .path = "a/big", .target = ""};
    struct fixture *f = *state;
    struct buffer b = new_stream();

    put_entry(&b, &dir_a);
    put_entry(&b, &big);
    uint32_t id = open_tree(f, CHANNEL_OP_TREE_IN, in_dir(f, "in"));
    peer_send(&f->peer, id, CHANNEL_DATA, CHANNEL_LANE_IN, buffer_bytes(&b), 60000);
    peer_send(&f->peer, id, CHANNEL_RESET, 0, NULL, 0);
    peer_finish(&f->peer, id, &f->result);
    assert_int_equal(f->result.status, ECANCELED);
    buffer_fini(&b);
    assert_int_equal(entries_in(in_dir(f, "in")), is_there(in_dir(f, "in/a")));
    if (is_there(in_dir(f, "in/a")))
        assert_int_equal(entries_in(in_dir(f, "in/a")), 0);
}

static void test_in_refused(void **state)
{
    struct fixture *f = *state;

    put_file(in_dir(f, "file"), "x");
    uint32_t id = open_tree(f, CHANNEL_OP_TREE_IN, in_dir(f, "file"));
    peer_finish(&f->peer, id, &f->result);
    assert_int_equal(f->result.status, ENOTDIR);
}

/* --- TREE_OUT -----------------------------------------------------------------------------------
 */

struct taken {
    unsigned entries, files, directories, symlinks;
    uint64_t skipped, bytes;
    char names[1024]; /* of all, each with a slash in front and a newline behind */
};

/* What the agent sent, judged as the daemon does. */
static struct taken take_stream(struct fixture *f)
{
    static struct tree_reader r;
    const struct buffer *b = &f->result.lanes[CHANNEL_LANE_IN];
    struct taken t = {0};
    struct error e = ERROR_INIT;
    struct tree_entry entry;
    enum tree_event event;

    tree_reader_init(&r);
    for (size_t at = 0, used = 0; at < b->size; at += used) {
        assert_int_equal(
            tree_reader_next(&r, buffer_bytes(b) + at, b->size - at, &used, &event, &entry, &e), 0);
        t.bytes += event == TREE_CONTENT ? used : 0;
        if (event != TREE_ENTRY)
            continue;
        assert_int_equal(entry.type == TREE_SKIPPED, t.entries == 0);
        t.entries++;
        t.files += entry.type == TREE_FILE;
        t.directories += entry.type == TREE_DIRECTORY;
        t.symlinks += entry.type == TREE_SYMLINK;
        t.skipped += entry.type == TREE_SKIPPED ? entry.size : 0;
        size_t used_names = strlen(t.names);
        (void)snprintf(t.names + used_names, sizeof(t.names) - used_names, "/%s\n", entry.path);
    }
    assert_true(tree_reader_is_between(&r));
    assert_true(f->result.eof[CHANNEL_LANE_IN]);
    assert_int_equal(f->result.bytes, b->size);
    return t;
}

static struct taken pack(struct fixture *f, const char *path)
{
    uint32_t id = open_tree(f, CHANNEL_OP_TREE_OUT, path);

    peer_finish(&f->peer, id, &f->result);
    assert_int_equal(f->result.status, 0);
    return take_stream(f);
}

static void test_out(void **state)
{
    struct fixture *f = *state;
    struct buffer b = new_stream();

    put_example(&b);
    assert_int_equal(unpack(f, &b, in_dir(f, "in")), 0);
    assert_int_equal(mkfifo(in_dir(f, "in/fifo"), 0644), 0);
    assert_int_equal(mkfifo(in_dir(f, "in/x/y/fifo"), 0644), 0);
    assert_int_equal(symlink("..", in_dir(f, "in/x/up")), 0);
    struct taken t = pack(f, in_dir(f, "in"));
    assert_int_equal(t.skipped, 2);
    assert_int_equal(t.files, 3);
    assert_int_equal(t.directories, 6);
    assert_int_equal(t.symlinks, 2);
    assert_int_equal(t.bytes, 2 * BIG_BYTES);
    assert_true(strstr(t.names, "/d/\n") == NULL &&
                strstr(t.names, "/d\n") < strstr(t.names, "/d/"));

    /* And into another place: the same, attributes included. */
    struct buffer again = new_stream();
    const struct buffer *sent = &f->result.lanes[CHANNEL_LANE_IN];
    const size_t skipped_bytes = TREE_HEAD_BYTES + TREE_FIELDS_BYTES + 8;
    assert_int_equal(
        buffer_append(&again, buffer_bytes(sent) + skipped_bytes, sent->size - skipped_bytes), 0);
    assert_int_equal(unpack(f, &again, in_dir(f, "in/copy")), 0);
    char command[512];
    (void)snprintf(command, sizeof(command),
                   "cd %s && mv in/copy copy && rm in/fifo in/x/y/fifo && for d in in copy; do "
                   "(cd $d && find . -mindepth 1 -printf '%%p %%M %%U %%G %%l ' "
                   "! -type d -printf '%%T@ %%s' -o -printf '\\n' | sort | md5sum); done | uniq | "
                   "wc -l | grep -qx 1",
                   f->dir);
    assert_int_equal(system(command), 0);
}

static void test_out_single(void **state)
{
    struct fixture *f = *state;

    put_file(in_dir(f, "file"), "12345");
    assert_int_equal(symlink("file", in_dir(f, "link")), 0);
    assert_int_equal(mkfifo(in_dir(f, "fifo"), 0644), 0);
    assert_int_equal(mkdir(in_dir(f, "none"), 0755), 0);
    struct taken t = pack(f, in_dir(f, "file"));
    assert_true(t.files == 1 && t.entries == 2 && t.bytes == 5);
    assert_string_equal(t.names, "/\n/file\n");
    assert_string_equal(pack(f, in_dir(f, "link")).names, "/\n/link\n");
    assert_string_equal(pack(f, in_dir(f, "none")).names, "/\n");

    peer_finish(&f->peer, open_tree(f, CHANNEL_OP_TREE_OUT, in_dir(f, "gone")), &f->result);
    assert_int_equal(f->result.status, ENOENT);
    peer_finish(&f->peer, open_tree(f, CHANNEL_OP_TREE_OUT, in_dir(f, "fifo")), &f->result);
    assert_int_equal(f->result.status, EINVAL);
}

/* One that becomes shorter on the way is never passed off as whole; one that grows is cut. */
static void test_out_changes(void **state)
{
    static struct peer_frame frame;
    struct fixture *f = *state;
    char path[CHANNEL_PATH_MAX];

    (void)snprintf(path, sizeof(path), "%s", in_dir(f, "file"));
    for (int grows = 0; grows < 2; grows++) {
        put_file(path, "");
        assert_int_equal(truncate(path, 1 << 20), 0);
        uint32_t id = open_tree(f, CHANNEL_OP_TREE_OUT, path);
        for (size_t got = 0; got < CHANNEL_WINDOW_BYTES;) {
            assert_true(peer_receive(&f->peer, &frame));
            got += frame.h.type == CHANNEL_DATA ? frame.h.length : 0;
            assert_false(peer_take(&f->result, &frame));
        }
        assert_int_equal(truncate(path, grows ? 2 << 20 : 1000), 0);
        peer_send_u32(&f->peer, id, CHANNEL_CREDIT, 0, 4 << 20);
        peer_finish(&f->peer, id, &f->result);
        assert_int_equal(f->result.status, grows ? 0 : EIO);
        if (grows)
            assert_int_equal(take_stream(f).bytes, 1 << 20);
        else
            assert_non_null(strstr(f->result.text, "shorter"));
    }
}

/* Other streams have their turn while a large tree is on its way. */
static void test_many(void **state)
{
    struct fixture *f = *state;
    struct buffer b = new_stream();

    for (unsigned i = 0; i < 5000; i++) {
        char name[64];
        (void)snprintf(name, sizeof(name), "many/dir%u/file%u", i / 100, i);
        put_named(&b, TREE_FILE, name, "");
    }
    assert_int_equal(unpack(f, &b, in_dir(f, "in")), 0);
    assert_counts(f, 5000, 0, 0);
    uint32_t tree = open_tree(f, CHANNEL_OP_TREE_OUT, in_dir(f, "in"));
    uint32_t other = peer_open_file(&f->peer, CHANNEL_OP_READ, 0, in_dir(f, "in/many/dir0/file0"));
    assert_int_equal(first_end(f), other);
    peer_send(&f->peer, tree, CHANNEL_RESET, 0, NULL, 0);
    assert_int_equal(first_end(f), tree);
    struct taken t = pack(f, in_dir(f, "in"));
    assert_true(t.files == 5000 && t.directories == 51 && t.bytes == 5000);
}

static void test_malformed(void **state)
{
    struct fixture *f = *state;
    static struct peer_frame frame;

    peer_send(&f->peer, open_tree(f, CHANNEL_OP_TREE_OUT, "/tmp"), CHANNEL_DATA, 0, "x", 1);
    while (peer_receive(&f->peer, &frame))
        continue;
    peer_stop(&f->peer, PEER_EXIT_BROKEN);
    peer_start(&f->peer, false);
    (void)open_tree(f, CHANNEL_OP_TREE_IN, "relative");
    assert_false(peer_receive(&f->peer, &frame));
    peer_stop(&f->peer, PEER_EXIT_BROKEN);
    peer_start(&f->peer, false);
}

int main(void)
{
#define TREE_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TREE_TEST(test_in),           TREE_TEST(test_in_replaces), TREE_TEST(test_in_hostile),
        TREE_TEST(test_in_truncated), TREE_TEST(test_in_reset),    TREE_TEST(test_in_refused),
        TREE_TEST(test_out),          TREE_TEST(test_out_single),  TREE_TEST(test_out_changes),
        TREE_TEST(test_many),         TREE_TEST(test_malformed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
