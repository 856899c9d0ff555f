  // --- and begin ----------------------------------------------------------------------------

  if (matchMedia('(max-width: 760px)').matches) $('starting').open = false;
  choose();
  refresh();
