/* What background processes hold of the daemon's memory: counted, bounded, and given back. */
#include "api_fixture.h"

#define EXEC    "/v1/sandboxes/sb_1/exec"
#define PROCESS "/v1/sandboxes/sb_1/processes/7"

/* Starts a command in the background; it runs as 7. Returns its stream. */
static uint32_t start(struct fixture *f, const char *body)
{
    request_json(f, EXEC, NULL, body);
    uint32_t s = take_open(f);
    fake_exec_info(&f->agent, s, 7);
    cJSON_Delete(reply_json(f, 201));
    return s;
}

/* All of them together hold a bounded part of the daemon's memory. */
static void test_memory_is_counted(void **state)
{
    static const char command[] = "{\"shell\":\"x\",\"background\":true,\"stdin\":\"12345\"}";
    const uint64_t ring = output_ring_bytes(PROCESS_RING_BYTES_MIN);
    struct fixture *f = *state;

    request_json(f, EXEC, NULL, "{\"shell\":\"x\",\"keep_output_bytes\":1}");
    expect_error(f, 400, "invalid_field", "keep_output_bytes");

    /* The ring's real size counts, and stdin until it was taken. */
    uint32_t s = start(f, "{\"shell\":\"x\",\"background\":true,\"keep_output_bytes\":1048577}");
    assert_int_equal(f->process_memory.bytes, 2 * ring);
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_OUT, "x", 1);
    fake_exec_end(&f->agent, s, CHANNEL_EXEC_EXITED, 0);
    request(f, "GET", PROCESS, NULL, "", 0);
    cJSON_Delete(reply_json(f, 200));
    assert_in_range(f->process_memory.bytes, 1, 8 * KIB);
    request(f, "DELETE", PROCESS, NULL, "", 0);
    cJSON_Delete(reply_json(f, 200));
    assert_int_equal(f->process_memory.bytes, 0);

    /* One byte short; and with a byte more it fits. */
    f->process_memory.bytes = PROCESSES_BYTES_MAX - ring - 4;
    request_json(f, EXEC, NULL, command);
    expect_error(f, 503, "no_capacity", "background");
    f->process_memory.bytes--;
    (void)start(f, command);
    assert_int_equal(f->process_memory.bytes, PROCESSES_BYTES_MAX - 5);
    end_sandbox(&f->sandbox);
    f->process_memory.bytes -= PROCESSES_BYTES_MAX - ring - 5;
    assert_int_equal(f->process_memory.bytes, 0);
}

/* Stdin that nobody will take any more is not kept with the process. */
static void test_stdin_is_not_kept_behind_the_end(void **state)
{
    struct fixture *f = *state;
    size_t size = 3 * CHANNEL_WINDOW_BYTES;
    struct buffer body = BUFFER_INIT(MIB);

    assert_int_equal(buffer_printf(&body, "{\"shell\":\"x\",\"background\":true,\"stdin\":\"%*s\"}",
                                   (int)size, ""),
                     0);
    assert_int_equal(buffer_append(&body, "", 1), 0);
    uint32_t s = start(f, (char *)buffer_bytes(&body));
    buffer_fini(&body);
    assert_int_equal(f->process_memory.bytes, output_ring_bytes(PROCESS_RING_BYTES_MIN) + size);
    fake_exec_end(&f->agent, s, CHANNEL_EXEC_EXITED, 0);
    request(f, "GET", PROCESS, NULL, "", 0);
    cJSON_Delete(reply_json(f, 200));
    assert_int_equal(f->process_memory.bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        API_TEST(test_memory_is_counted),
        API_TEST(test_stdin_is_not_kept_behind_the_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
