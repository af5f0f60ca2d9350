/* Handlers of /v1/sandboxes (api_sandboxes.c). */
#pragma once

struct exchange;

void api_sandbox_create(struct exchange *x);
void api_sandbox_list(struct exchange *x);
void api_sandbox_get(struct exchange *x);
void api_sandbox_patch(struct exchange *x);
void api_sandbox_delete(struct exchange *x);
