#include "vmm/common/control.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "ipc/ipc.h"
#include "vmm/common/serial.h"

_Static_assert(VMM_FD_COUNT_BOOT <= IPC_FDS_MAX, "CONFIG's descriptors go in one message");

void control_init(struct control *c, int fd)
{
    int err = pthread_mutex_init(&c->end_lock, NULL);

    assert(err == 0);
    c->fd = fd;
    c->boot_log = NULL;
}

int control_check_config(const struct vmm_config *config, size_t size, size_t fd_count,
                         struct error *e)
{
    size_t fds_wanted =
        config->mode == VMM_MODE_BOOT ? VMM_FD_COUNT_BOOT : (size_t)VMM_FD_COUNT_RESTORE;

    if (size != sizeof(*config) || config->type != VMM_CONFIG)
        return error_set(e, ERR_BAD_REQUEST, "the first message is not CONFIG");
    if (config->mode != VMM_MODE_BOOT && config->mode != VMM_MODE_RESTORE)
        return error_set(e, ERR_BAD_REQUEST, "CONFIG has an unknown mode");
    if (fd_count != fds_wanted)
        return error_set(e, ERR_BAD_REQUEST, "CONFIG came with %zu descriptors, not %zu", fd_count,
                         fds_wanted);
    if (config->vcpus < 1 || config->vcpus > SANDBOX_VCPUS_MAX)
        return error_set(e, ERR_BAD_REQUEST, "%u vCPUs are not between 1 and %u", config->vcpus,
                         SANDBOX_VCPUS_MAX);
    if (config->mem_mib < SANDBOX_MEM_MIB_MIN || config->mem_mib > SANDBOX_MEM_MIB_MAX)
        return error_set(e, ERR_BAD_REQUEST, "%u MiB are not between %u and %u", config->mem_mib,
                         SANDBOX_MEM_MIB_MIN, SANDBOX_MEM_MIB_MAX);
    if (memchr(config->cmdline_extra, '\0', sizeof(config->cmdline_extra)) == NULL)
        return error_set(e, ERR_BAD_REQUEST, "CONFIG's command line does not end");
    return 0;
}

void control_wait_config(struct control *c, struct vmm_config *ret_config,
                         int ret_fds[VMM_FD_COUNT_BOOT])
{
    struct error e = ERROR_INIT;
    size_t fd_count = 0;
    int size =
        ipc_recv(c->fd, ret_config, sizeof(*ret_config), ret_fds, VMM_FD_COUNT_BOOT, &fd_count, &e);

    if (size == 0)
        _exit(CONTROL_EXIT_OK);
    if (size < 0)
        control_gone_error(c, VMM_GONE_PROTOCOL, &e);
    if ((size_t)size != sizeof(*ret_config) || ret_config->type != VMM_CONFIG)
        control_gone(c, VMM_GONE_PROTOCOL, 0, "the first message is not CONFIG");
    if (control_check_config(ret_config, (size_t)size, fd_count, &e) != 0)
        control_gone_error(c, VMM_GONE_CONFIG, &e);
}

void control_wait_start(struct control *c, struct vmm_start *ret_start)
{
    struct error e = ERROR_INIT;
    int size = ipc_recv(c->fd, ret_start, sizeof(*ret_start), NULL, 0, NULL, &e);

    if (size == 0)
        _exit(CONTROL_EXIT_OK);
    if (size < 0)
        control_gone_error(c, VMM_GONE_PROTOCOL, &e);
    if ((size_t)size != sizeof(*ret_start) || ret_start->type != VMM_START)
        control_gone(c, VMM_GONE_PROTOCOL, 0, "the message after CONFIG is not START");
}

void control_refuse(struct control *c)
{
    struct error e = ERROR_INIT;
    struct vmm_start message;

    if (ipc_recv(c->fd, &message, sizeof(message), NULL, 0, NULL, &e) == 0) {
        /* Another thread may be saying why the guest is gone: that is the end that counts. */
        (void)pthread_mutex_lock(&c->end_lock);
        _exit(CONTROL_EXIT_OK);
    }
    control_gone(c, VMM_GONE_PROTOCOL, 0, "a message came after START");
}

/* The socket is a blocking one, and a guest has at most four events: this cannot block for long. */
static void send_event(struct control *c, const struct vmm_event *event)
{
    struct error e = ERROR_INIT;

    /* Nobody to tell is as good as a closed socket. */
    if (ipc_send(c->fd, event, sizeof(*event), NULL, 0, &e) != 0)
        _exit(CONTROL_EXIT_OK);
}

void control_report(struct control *c, enum vmm_message_type type, uint64_t load_ns)
{
    struct vmm_event event = {.type = type, .mono_ns = clock_mono_ns(), .load_ns = load_ns};

    send_event(c, &event);
}

void control_gone(struct control *c, enum vmm_gone_reason reason, uint32_t detail,
                  const char *format, ...)
{
    struct vmm_event event = {
        .type = VMM_GONE, .reason = reason, .detail = detail, .mono_ns = clock_mono_ns()};
    va_list ap;

    (void)pthread_mutex_lock(&c->end_lock);
    va_start(ap, format);
    int used = vsnprintf(event.text, sizeof(event.text), format, ap);
    va_end(ap);
    if (c->boot_log != NULL && used >= 0 && (size_t)used + 2 < sizeof(event.text)) {
        event.text[used] = '\n';
        serial_copy_tail(c->boot_log, event.text + used + 1, sizeof(event.text) - (size_t)used - 1);
    }
    send_event(c, &event);
    _exit(CONTROL_EXIT_GONE);
}

void control_gone_error(struct control *c, enum vmm_gone_reason reason, const struct error *e)
{
    char text[VMM_TEXT_MAX];

    error_format(e, text, sizeof(text));
    control_gone(c, reason, 0, "%s", text);
}
