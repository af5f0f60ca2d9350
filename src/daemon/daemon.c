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
#include "daemon/api/common/api.h"
#include "daemon/machine/machine.h"
#include "daemon/machine/priv_link.h"
#include "daemon/machine/shape_set.h"
#include "daemon/machine/template.h"
#include "daemon/process/process_table.h"
#include "daemon/sandbox/sandbox_table.h"
#include "daemon/server/budget.h"
#include "daemon/server/server.h"
#include "daemon/settings.h"
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
    uv_loop_t loop;
    struct settings settings;
    struct template_set templates;
    struct machine machine;
    struct shape_set *shapes;
    struct sandbox_limits limits;
    struct process_memory process_memory;
    struct sandbox_table *sandboxes;
    struct api api;
    struct exchange_budget budget;
    struct server *server;
    uv_signal_t signals[2];
    uv_timer_t stop_timer;
    uint64_t stop_ns;
    bool server_stopped;
    unsigned warming; /* shapes that are not warm yet */
    int priv_pid;
};

/* --- stop --------------------------------------------------------------------------------------
 */

static void on_server_stopped(void *arg)
{
    struct role *r = arg;

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
    if (!r->server_stopped || sandbox_count(r->sandboxes) > 0 ||
        priv_link_count(r->machine.priv) > 0)
        return;
    priv_link_close(r->machine.priv);
    uv_close((uv_handle_t *)&r->stop_timer, NULL);
    for (size_t i = 0; i < 2; i++)
        uv_close((uv_handle_t *)&r->signals[i], NULL);
}

static void stop(struct role *r)
{
    r->api.stopping = true;
    r->stop_ns = clock_mono_ns();
    shape_set_stop(r->shapes);
    sandbox_table_stop(r->sandboxes);
    server_stop(r->server, STOP_GRACE_MS, on_server_stopped, r);
    (void)uv_timer_start(&r->stop_timer, on_stop_tick, 0, STOP_CHECK_MS);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct role *r = handle->data;

    if (r->api.stopping) {
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

static void on_warm(void *context, const struct error *e)
{
    struct role *r = context;

    if (e != NULL)
        log_failure(e, "cannot warm a template");
    if (--r->warming > 0)
        return;
    r->api.warm = true;
    log_info("ready");
}

static void warm_one(struct role *r, const char *name)
{
    struct error e = ERROR_INIT;
    const struct shape_key key = {.template = template_find(&r->templates, name, &e),
                                  .vcpus = r->limits.default_vcpus,
                                  .mem_mib = r->limits.default_mem_mib,
                                  .disk_mib = r->limits.default_disk_mib};

    if (key.template == NULL)
        on_warm(r, &e);
    else
        shape_set_keep_warm(r->shapes, &key, on_warm, r);
}

static void warm_all(struct role *r)
{
    const struct settings *s = &r->settings;

    r->warming = s->warm_named ? s->warm_count + 1 : 2;
    for (unsigned i = 0; s->warm_named && i < s->warm_count; i++)
        warm_one(r, s->warm[i]);
    if (!s->warm_named)
        warm_one(r, r->limits.default_template);
    /* One was counted for this function, so that "ready" comes even with nothing to warm. */
    on_warm(r, NULL);
}

/* The configured default template may not have been built: then the first one there is serves. */
static const char *choose_default(struct role *r)
{
    struct error e = ERROR_INIT;

    if (template_find(&r->templates, r->settings.default_template, &e) != NULL)
        return r->settings.default_template;
    log_warn("%s; the default is %s", e.message, r->templates.templates[0].name);
    return r->templates.templates[0].name;
}

/* What each room needs to know of the settings. */
static void share_settings(struct role *r)
{
    const struct settings *s = &r->settings;

    r->limits = (struct sandbox_limits){.default_vcpus = s->default_vcpus,
                                        .default_mem_mib = s->default_mem_mib,
                                        .default_disk_mib = s->default_disk_mib,
                                        .default_timeout_s = s->default_timeout_s,
                                        .max_sandboxes = s->max_sandboxes,
                                        .max_vcpus = s->max_vcpus,
                                        .max_mem_mib = s->max_mem_mib};
    (void)snprintf(r->limits.default_template, sizeof(r->limits.default_template), "%s",
                   choose_default(r));
    r->machine = (struct machine){.loop = &r->loop,
                                  .templates = &r->templates,
                                  .snapshots_fd = HANDOVER_DAEMON_SNAPSHOTS,
                                  .scratch_fd = HANDOVER_DAEMON_SCRATCH,
                                  .tmp_fd = HANDOVER_DAEMON_TMP,
                                  .boot_timeout_s = s->boot_timeout_s,
                                  .pool_min = s->pool_min,
                                  .pool_max = s->pool_max,
                                  .host_mem_mib = s->host_mem_mib,
                                  .reserve_mem_mib = s->reserve_mem_mib,
                                  .overcommit_percent = s->overcommit_percent};
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

/* What guests may use in the end, however much is promised to them. At least 1, so that "nothing"
 * is a limit as well. */
static uint32_t offered_mem_mib(const struct settings *s)
{
    return s->host_mem_mib > s->reserve_mem_mib ? s->host_mem_mib - s->reserve_mem_mib : 1;
}

/* From the bottom up: each room is given those below it. */
static int make_rooms(struct role *r, struct error *e)
{
    if (uv_loop_init(&r->loop) != 0)
        return error_set(e, ERR_INTERNAL, "cannot make an event loop");
    r->machine.priv = priv_link_new(&r->loop, HANDOVER_DAEMON_PRIV, on_priv_lost, r, e);
    if (r->machine.priv == NULL || shape_set_new(&r->machine, &r->shapes, e) != 0)
        return -1;
    priv_link_total(r->machine.priv, offered_mem_mib(&r->settings));
    const struct sandbox_table_options table = {.loop = &r->loop,
                                                .shapes = r->shapes,
                                                .templates = &r->templates,
                                                .limits = &r->limits,
                                                .process_memory = &r->process_memory};
    if (sandbox_table_new(&table, &r->sandboxes, e) != 0)
        return -1;
    r->api = (struct api){.sandboxes = r->sandboxes,
                          .shapes = r->shapes,
                          .templates = &r->templates,
                          .limits = &r->limits,
                          .started_ns = clock_mono_ns()};
    r->budget = (struct exchange_budget)EXCHANGE_BUDGET_INIT;
    const struct server_options server = {.loop = &r->loop,
                                          .routes = api_routes,
                                          .route_count = api_route_count,
                                          .context = &r->api,
                                          .budget = &r->budget};
    return server_new(&server, HANDOVER_DAEMON_LISTEN, &r->server, e);
}

static int start(struct role *r, const struct handover_settings *h, struct error *e)
{
    r->priv_pid = h->priv_pid;
    if (read_config(&r->settings, h, e) != 0 ||
        template_set_load(&r->templates, HANDOVER_DAEMON_IMAGES, on_template_skipped, e) != 0)
        return -1;
    share_settings(r);
    if (make_rooms(r, e) != 0)
        return -1;
    (void)uv_timer_init(&r->loop, &r->stop_timer);
    r->stop_timer.data = r;
    for (size_t i = 0; i < 2; i++) {
        (void)uv_signal_init(&r->loop, &r->signals[i]);
        r->signals[i].data = r;
        (void)uv_signal_start(&r->signals[i], on_signal, i == 0 ? SIGTERM : SIGINT);
    }
    return 0;
}

static void fini(struct role *r)
{
    int status;

    server_free(r->server);
    sandbox_table_free(r->sandboxes);
    shape_set_free(r->shapes);
    template_set_fini(&r->templates);
    if (uv_loop_close(&r->loop) != 0)
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
    (void)uv_run(&r->loop, UV_RUN_DEFAULT);
    fini(r);
    log_info("stopped");
    free(r);
    return 0;
}
