/* What a vCPU's exits mean. */
#pragma once

struct vcpu;

enum exit_verdict {
    EXIT_GO_ON,
    EXIT_PARK, /* the guest has asked to be parked: stop it behind this exit */
};

/* Handles the exit that KVM_RUN returned with; ends the process where the guest cannot go on. */
enum exit_verdict exits_handle(struct vcpu *v);
