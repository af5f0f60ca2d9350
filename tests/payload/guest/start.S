/* Entry of the payload guests, and what they cannot say in C. Long mode, memory mapped one to one,
 * interrupts off, boot parameters in rsi, as for a Linux kernel. */
        .section .text.start, "ax"
        .globl _start
_start:
        leaq    stack_top(%rip), %rsp
        movq    %rsi, %rdi
        xorl    %ebp, %ebp
        call    guest_main
1:      cli
        hlt
        jmp     1b

/* A fault with an error code (#GP, #PF): count it and go on behind the instruction, whose length the
 * code that may fault has announced. */
        .globl fault_with_code
fault_with_code:
        addq    $8, %rsp
        .globl fault_without_code
fault_without_code:
        pushq   %rax
        movq    fault_skip(%rip), %rax
        addq    %rax, 8(%rsp)
        incq    fault_count(%rip)
        popq    %rax
        iretq

        .globl timer_interrupt
timer_interrupt:
        pushq   %rax
        incq    timer_count(%rip)
        movl    $0xfee000b0, %eax       /* end of interrupt */
        movl    $0, (%rax)
        popq    %rax
        iretq

/* Real-mode code of a second vCPU, copied to 0x8000: floods the serial port. */
        .code16
        .globl second_flood
second_flood:
        movw    $0x3f8, %dx
        movb    $'2', %al
1:      outb    %al, %dx
        jmp     1b
        .globl second_flood_end
second_flood_end:

/* The same, but it goes to sleep for good. */
        .globl second_halt
second_halt:
        cli
1:      hlt
        jmp     1b
        .globl second_halt_end
second_halt_end:
        .code64

        .bss
        .balign 16
        .skip   16384
stack_top:
        .balign 8
        .globl fault_skip, fault_count, timer_count
fault_skip:     .skip 8
fault_count:    .skip 8
timer_count:    .skip 8
        .section .note.GNU-stack, "", @progbits
