/* One file as read-only bytes: EMBED_NAME and EMBED_NAME_end delimit it. See src/embed.h. */
    .section .rodata
    .balign 16
#define PASTE2(a, b) a##b
#define PASTE(a, b)  PASTE2(a, b)
    .global EMBED_NAME
    .global PASTE(EMBED_NAME, _end)
EMBED_NAME:
    .incbin EMBED_FILE
PASTE(EMBED_NAME, _end):
    .section .note.GNU-stack, "", @progbits
