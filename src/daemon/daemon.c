#include "daemon/daemon.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "daemon/api/api_routes.h"
#include "daemon/context.h"
#include "daemon/machine/priv_link.h"
#include "daemon/machine/shape.h"
#include "daemon/sandbox/sandbox.h"
#include "daemon/sandbox/sandbox_table.h"
#include "daemon/server/server.h"
#include "ipc/handover.h"

/*
 * Start: read what serve handed over, load templates, serve at once and warm the pool meanwhile
 * (requests that come early wait for their template). Stop: no new connections, every sandbox is
 * ended (open commands are answered with sandbox_gone), then the pool; when priv has reported the
 * last monitor gone its socket is closed, and with nothing left in it the loop ends.
 */

#define STOP_GRACE_MS    2000u
#define STOP_CHECK_MS    10u
#define STOP_DEADLINE_MS 15000u

struct role {
    struct daemon d;
    uv_signal_t signals[2];
    uv_timer_t stop_timer;
    uint64_t stop_ns;
    bool server_stopped;
    unsigned warming; /* shapes that are not warm yet */
    int priv_pid;
};

/* --- stop --------------------------------------------------------------------------------------
 */

static void on_server_stopped(void *context)
{
    struct role *r = context;

    r->server_stopped = true;
}

static void on_stop_tick(uv_timer_t *timer)
{
    struct role *r = timer->data;
    uint64_t passed_ms = (clock_mono_ns() - r->stop_ns) / NS_PER_MS;

    if (passed_ms > STOP_DEADLINE_MS) {
        log_error("could not stop cleanly within %u s; priv removes what is left",
                  STOP_DEADLINE_MS / 1000);
        _exit(1);
    }
    if (!r->server_stopped || sandbox_count(&r->d) > 0 || priv_link_count(r->d.priv) > 0)
        return;
    priv_link_close(r->d.priv);
    uv_close((uv_handle_t *)&r->stop_timer, NULL);
    for (size_t i = 0; i < 2; i++)
        uv_close((uv_handle_t *)&r->signals[i], NULL);
}

static void stop(struct role *r)
{
    struct daemon *d = &r->d;

    if (d->stopping)
        return;
    d->stopping = true;
    r->stop_ns = clock_mono_ns();
    shape_set_stop(d->shapes);
    sandbox_end_all(d);
    server_stop(d->server, STOP_GRACE_MS, on_server_stopped);
    (void)uv_timer_start(&r->stop_timer, on_stop_tick, 0, STOP_CHECK_MS);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct role *r = handle->data;

    if (r->d.stopping) {
        log_warn("stopping at once");
        _exit(1);
    }
    log_info("stopping (%s)", strsignal(number));
    stop(r);
}

/* Monitors die with priv, and nobody could start new ones: the only safe thing is to end. */
static void on_priv_lost(void *context)
{
    (void)context;
    log_error("priv has ended, and all sandboxes with it");
    _exit(1);
}

/* --- start -------------------------------------------------------------------------------------
 */

static void on_template_skipped(const char *name, const struct error *e)
{
    (void)name;
    log_failure(e, "left out");
}

static void on_warm(struct daemon *d, const struct error *e)
{
    struct role *r = (struct role *)d; /* its first member */

    if (e != NULL)
        log_failure(e, "cannot warm a template");
    if (--r->warming > 0)
        return;
    d->warm = true;
    log_info("ready");
}

static void warm_one(struct role *r, const char *name)
{
    const struct settings *s = &r->d.settings;
    struct error e = ERROR_INIT;
    const struct template *t = template_find(&r->d.templates, name, &e);

    if (t == NULL)
        on_warm(&r->d, &e);
    else
        shape_keep_warm(r->d.shapes, t, s->default_vcpus, s->default_mem_mib, s->default_disk_mib,
                        on_warm);
}

static void warm_all(struct role *r)
{
    const struct settings *s = &r->d.settings;

    r->warming = s->warm_named ? s->warm_count + 1 : 2;
    for (unsigned i = 0; s->warm_named && i < s->warm_count; i++)
        warm_one(r, s->warm[i]);
    if (!s->warm_named)
        warm_one(r, s->default_template);
    /* One was counted for this function, so that "ready" comes even with nothing to warm. */
    on_warm(&r->d, NULL);
}

/* The configured default template may not have been built: then the first one there is serves. */
static void choose_default(struct daemon *d)
{
    struct error e = ERROR_INIT;

    if (template_find(&d->templates, d->settings.default_template, &e) != NULL)
        return;
    log_warn("%s; the default is %s", e.message, d->templates.templates[0].name);
    (void)snprintf(d->settings.default_template, sizeof(d->settings.default_template), "%s",
                   d->templates.templates[0].name);
}

static int read_config(struct settings *s, const struct handover_settings *h, struct error *e)
{
    int fd = HANDOVER_DAEMON_CONFIG;

    settings_init(s);
    if (h->has_config == 0)
        return 0;
    char *text = malloc(SETTINGS_BYTES_MAX + 1);
    if (text == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory");
    ssize_t n = fd_read_full(fd, text, SETTINGS_BYTES_MAX + 1);
    int result = -1;
    if (n < 0)
        (void)error_errno(e, errno, "cannot read %s", h->config_path);
    else if (n > (ssize_t)SETTINGS_BYTES_MAX)
        (void)error_set(e, ERR_TOO_LARGE, "%s is larger than 64 KiB", h->config_path);
    else if ((result = settings_parse(s, text, (size_t)n, e)) != 0)
        (void)error_wrap(e, "%s", h->config_path);
    free(text);
    fd_close(&fd);
    return result;
}

static int start(struct role *r, const struct handover_settings *h, struct error *e)
{
    struct daemon *d = &r->d;

    d->snapshots_fd = HANDOVER_DAEMON_SNAPSHOTS;
    d->scratch_fd = HANDOVER_DAEMON_SCRATCH;
    d->tmp_fd = HANDOVER_DAEMON_TMP;
    d->started_ns = clock_mono_ns();
    r->priv_pid = h->priv_pid;
    if (read_config(&d->settings, h, e) != 0 ||
        template_set_load(&d->templates, HANDOVER_DAEMON_IMAGES, on_template_skipped, e) != 0)
        return -1;
    choose_default(d);
    if (uv_loop_init(&d->loop) != 0)
        return error_set(e, ERR_INTERNAL, "cannot make an event loop");
    d->priv = priv_link_new(&d->loop, HANDOVER_DAEMON_PRIV, on_priv_lost, r, e);
    if (d->priv == NULL || sandbox_table_new(&d->sandboxes, e) != 0 ||
        shape_set_new(d, &d->shapes, e) != 0)
        return -1;
    const struct server_options options = {
        .loop = &d->loop, .routes = api_routes, .route_count = api_route_count, .context = d};
    if (server_new(&options, HANDOVER_DAEMON_LISTEN, &d->server, e) != 0)
        return -1;
    (void)uv_timer_init(&d->loop, &r->stop_timer);
    r->stop_timer.data = r;
    for (size_t i = 0; i < 2; i++) {
        (void)uv_signal_init(&d->loop, &r->signals[i]);
        r->signals[i].data = r;
        (void)uv_signal_start(&r->signals[i], on_signal, i == 0 ? SIGTERM : SIGINT);
    }
    return 0;
}

static void fini(struct role *r)
{
    int status;

    server_free(r->d.server);
    shape_set_free(r->d.shapes);
    sandbox_table_free(r->d.sandboxes);
    template_set_fini(&r->d.templates);
    if (uv_loop_close(&r->d.loop) != 0)
        log_error("a handle of the event loop was left open");
    /* priv has cleaned up when it is gone; a new daemon may start right behind us. */
    while (waitpid(r->priv_pid, &status, 0) < 0 && errno == EINTR)
        continue;
}

int daemon_main(void)
{
    struct handover_settings h;
    struct error e = ERROR_INIT;
    struct role *r = calloc(1, sizeof(*r));

    log_init("daemon", LOG_INFO);
    (void)signal(SIGPIPE, SIG_IGN);
    if (r == NULL || handover_read(HANDOVER_DAEMON_SETTINGS, &h, &e) != 0) {
        log_failure(&e, "cannot start");
        return 1;
    }
    log_init("daemon", (enum log_level)h.log_level);
    if (start(r, &h, &e) != 0) {
        log_failure(&e, "cannot start");
        if (e.remedy[0] != '\0')
            log_error("%s", e.remedy);
        return 1;
    }
    log_info("serving on %s, state in %s", h.socket_path, h.state_path);
    warm_all(r);
    (void)uv_run(&r->d.loop, UV_RUN_DEFAULT);
    fini(r);
    log_info("stopped");
    free(r);
    return 0;
}
