/* /v1/info and /v1/health: what this daemon is and has. */
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/host.h"
#include "cloche/version.h"
#include "daemon/api/common/api.h"
#include "daemon/api/host/handlers.h"
#include "daemon/machine/shape_set.h"
#include "daemon/machine/template.h"
#include "daemon/sandbox/sandbox_table.h"
#include "daemon/server/exchange.h"
#include "json/json_write.h"

#define INFO_BYTES_MAX (1 * MIB)

static void put_shape(const struct shape_facts *f, void *context)
{
    struct json_writer *w = context;

    json_begin_object(w, NULL);
    json_put_text(w, "template", f->template_name);
    json_put_int(w, "vcpus", f->vcpus);
    json_put_int(w, "mem_mib", f->mem_mib);
    json_put_int(w, "disk_mib", f->disk_mib);
    json_put_text(w, "state", f->state);
    json_put_int(w, "shells", f->shells);
    json_put_int(w, "building", f->building);
    json_put_int(w, "target", f->target);
    json_end_object(w);
}

static void put_host(struct json_writer *w)
{
    struct utsname name;

    json_begin_object(w, "host");
    json_put_text(w, "kvm", host_kvm_kind() == HOST_KVM_HARDWARE ? "hardware" : "software");
    json_put_int(w, "cpus", sysconf(_SC_NPROCESSORS_ONLN));
    if (uname(&name) == 0)
        json_put_text(w, "kernel", name.release);
    json_end_object(w);
}

static void put_limits(struct json_writer *w, const struct sandbox_limits *s)
{
    json_begin_object(w, "defaults");
    json_put_text(w, "template", s->default_template);
    json_put_int(w, "vcpus", s->default_vcpus);
    json_put_int(w, "mem_mib", s->default_mem_mib);
    json_put_int(w, "disk_mib", s->default_disk_mib);
    json_put_int(w, "timeout_s", s->default_timeout_s);
    json_end_object(w);
    json_begin_object(w, "limits");
    json_put_int(w, "sandboxes", s->max_sandboxes);
    json_put_int(w, "vcpus", s->max_vcpus);
    json_put_int(w, "mem_mib", s->max_mem_mib);
    json_put_int(w, "disk_mib", SANDBOX_DISK_MIB_MAX);
    json_put_int(w, "timeout_s", SANDBOX_TIMEOUT_S_MAX);
    json_end_object(w);
}

static void put_memory(struct json_writer *w, const struct shape_set_memory *m)
{
    json_begin_object(w, "memory");
    json_put_int(w, "limit_mib", (int64_t)m->limit_mib);
    json_put_int(w, "guests_mib", (int64_t)m->guests_mib);
    json_put_int(w, "shells_mib", (int64_t)m->shells_mib);
    json_put_int(w, "overcommit_percent", m->overcommit_percent);
    json_end_object(w);
}

void api_info(struct exchange *x)
{
    const struct api *api = exchange_context(x);
    const struct shape_set_memory memory = shape_set_memory(api->shapes);
    struct buffer body = BUFFER_INIT(INFO_BYTES_MAX);
    struct json_writer w;

    json_writer_init(&w, &body);
    json_begin_object(&w, NULL);
    json_put_text(&w, "version", CLOCHE_VERSION);
    json_put_int(&w, "pid", getpid());
    json_put_int(&w, "uptime_s", (int64_t)((clock_mono_ns() - api->started_ns) / NS_PER_S));
    put_host(&w);
    json_begin_array(&w, "templates");
    for (unsigned i = 0; i < api->templates->count; i++) {
        json_begin_object(&w, NULL);
        json_put_text(&w, "name", api->templates->templates[i].name);
        json_put_text(&w, "description", api->templates->templates[i].description);
        json_put_int(&w, "image_bytes", (int64_t)api->templates->templates[i].root_bytes);
        json_end_object(&w);
    }
    json_end_array(&w);
    put_limits(&w, api->limits);
    json_put_int(&w, "sandboxes", sandbox_count(api->sandboxes));
    put_memory(&w, &memory);
    json_begin_array(&w, "pools");
    shape_set_describe(api->shapes, put_shape, &w);
    json_end_array(&w);
    json_end_object(&w);
    exchange_reply_written(x, 200, &w);
}

/* 200 as long as requests are served; "warming" until the pool is filled for the first time. */
void api_health(struct exchange *x)
{
    const struct api *api = exchange_context(x);
    const char *text = api->stopping ? "{\"status\":\"stopping\"}"
                       : api->warm   ? "{\"status\":\"ready\"}"
                                     : "{\"status\":\"warming\"}";

    exchange_reply(x, api->stopping ? 503 : 200, "application/json", text, strlen(text));
}
