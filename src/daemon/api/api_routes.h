/* The table of all routes of the API. */
#pragma once

#include <stddef.h>

#include "daemon/server/router.h"

extern const struct route api_routes[];
extern const size_t api_route_count;
