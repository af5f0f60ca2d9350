/* Handlers of /v1/info and /v1/health (api_host.c). */
#pragma once

struct exchange;

void api_info(struct exchange *x);
void api_health(struct exchange *x);
