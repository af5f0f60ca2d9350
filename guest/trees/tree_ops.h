/* The operations that move trees: TREE_IN and TREE_OUT. Their streams share nothing. */
#pragma once

#include "guest/channel/stream.h"

extern const struct stream_op tree_in_op;
extern const struct stream_op tree_out_op;
