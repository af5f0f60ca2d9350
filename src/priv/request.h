/* The requests of the daemon (cloche/priv_proto.h): which are taken, and when. */
#pragma once

struct priv;

/* Takes what has come on the control socket. A daemon that has gone sets `closed`; one that breaks
 * the protocol ends priv (priv_fail). */
void request_receive(struct priv *p);
